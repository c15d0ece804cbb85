// A Unix socket on which clients ask line by line.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <map>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

[[noreturn]] inline void fail(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

// Each client has a thread; it answers a line before it reads the next.
class Socket {
public:
    // Makes the answer to one line.
    using Answer = std::function<std::string(const std::string& line)>;

    Socket(std::string path, Answer answer) : path_(std::move(path)), answer_(std::move(answer)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path_.size() >= sizeof address.sun_path) throw std::runtime_error(path_ + " is too long for a socket");
        std::memcpy(address.sun_path, path_.c_str(), path_.size());
        fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd_ < 0) fail("socket");
        if (bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) || listen(fd_, SOMAXCONN)) {
            const int why = errno;
            ::close(fd_);
            errno = why;
            fail(path_);
        }
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    ~Socket() {
        close();
        ::close(fd_);
        unlink(path_.c_str());
    }

    // Accepts clients until the file descriptor `stop` becomes readable.
    void serve(int stop) {
        for (;;) {
            pollfd fds[] = {{fd_, POLLIN, 0}, {stop, POLLIN, 0}};
            if (poll(fds, 2, -1) < 0 && errno != EINTR) fail("poll");
            if (fds[1].revents) return;
            const int client = fds[0].revents ? accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC) : -1;
            if (client < 0) continue;
            std::lock_guard lock(mutex_);
            clients_[client] = std::thread([this, client] { talk(client); });
            join_gone();
        }
    }

    // Reads no more lines, and waits until every line that was read has been answered.
    void close() {
        std::unique_lock lock(mutex_);
        for (const auto& [client, thread] : clients_) shutdown(client, SHUT_RD);
        left_.wait(lock, [&] { return clients_.empty(); });
        join_gone();
    }

private:
    void talk(int client) {
        std::string text;
        char part[4096];
        bool open = true;
        while (open) {
            const ssize_t n = recv(client, part, sizeof part, 0);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) break;
            text.append(part, static_cast<size_t>(n));
            for (size_t end; open && (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1))
                open = send_all(client, answer_(text.substr(0, end)));
        }
        std::lock_guard lock(mutex_);
        ::close(client);
        gone_.push_back(std::move(clients_.extract(client).mapped()));
        left_.notify_all();
    }
    // Joins the threads of clients that have left. None of them needs the mutex any more, so the caller may hold it.
    void join_gone() {
        for (std::thread& thread : gone_) thread.join();
        gone_.clear();
    }
    static bool send_all(int client, const std::string& text) {
        for (size_t sent = 0; sent < text.size();) {
            const ssize_t n = send(client, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
            if (n < 0 && errno != EINTR) return false;
            if (n > 0) sent += static_cast<size_t>(n);
        }
        return true;
    }

    const std::string path_;
    const Answer answer_;
    int fd_ = -1;
    std::mutex mutex_;
    std::condition_variable left_;
    std::map<int, std::thread> clients_;
    std::vector<std::thread> gone_;
};

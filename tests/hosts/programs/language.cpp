// Features of C++ that matter when a process begins, runs and ends.

#include "cases.h"

#include <atomic>
#include <future>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Told {
  std::string name;
  ~Told() {
    std::printf("destroyed %s\n", name.c_str());
  }
};

Told &function_static() {
  static Told told{"function's static"};
  return told;
}
thread_local std::unique_ptr<Told> of_thread;

// Runs a model when the program's own statics are destroyed.
struct Late {
  bool on = false;
  ~Late() {
    if (on) run_model("in a static destructor");
    std::fflush(stdout);
  }
} late;

void deep(int n) {
  Told told{"frame " + std::to_string(n)};
  if (!n) throw std::runtime_error("from below");
  deep(n - 1);
}

}  // namespace

CASE(statics_in_order) {
  function_static();
  std::atexit([] { std::puts("handler"); });
  static Told told{"later static"};
  return 0;
}
CASE(unwinds) {
  try {
    deep(3);
  } catch (const std::exception &e) {
    std::puts(e.what());
  }
  return 0;
}
CASE(throws_to_nobody) {
  std::fflush(stdout);
  throw std::runtime_error("nobody catches this");
}
CASE(throws_out_of_noexcept) {
  auto f = []() noexcept { throw 5; };
  std::set_terminate([] { _exit(44); });
  f();
  return 0;
}
CASE(own_terminate_handler) {
  std::set_terminate([] {
    std::puts("terminated");
    std::exit(33);
  });
  throw 1;
}
CASE(thread_local_destructors) {
  std::thread([] { of_thread.reset(new Told{"thread's"}); }).join();
  of_thread.reset(new Told{"main's"});
  return 0;
}
CASE(exception_crosses_threads) {
  auto future = std::async(std::launch::async, []() -> int { throw std::logic_error("in a thread"); });
  try {
    return future.get();
  } catch (const std::logic_error &e) {
    std::puts(e.what());
  }
  return 0;
}
CASE(many_tasks) {
  std::vector<std::future<long>> all;
  for (long i = 0; i < 100; ++i) all.push_back(std::async(std::launch::async, [i] { return i * i; }));
  long sum = 0;
  for (auto &one : all) sum += one.get();
  std::cout << sum << std::endl;
  return 0;
}
CASE(detached_thread_at_the_end) {
  std::atomic<bool> started{false};
  std::thread([&] {
    started = true;
    for (;;) run_model(NULL);
  }).detach();
  while (!started) std::this_thread::yield();
  std::fflush(stdout);
  _exit(6);
}
CASE(quick_exit_with_a_thread) {
  std::thread([] {
    for (;;) pause();
  }).detach();
  std::at_quick_exit([] { std::puts("quick"), std::fflush(stdout); });
  std::quick_exit(9);
}
CASE(model_in_a_static_destructor) {
  late.on = true;
  return 0;
}
CASE(model_in_an_exit_handler) {
  std::atexit([] { run_model("at exit"); });
  std::exit(4);
}
CASE(model_in_a_thread_local_destructor) {
  struct Runs {
    ~Runs() {
      run_model("at the end of the thread");
    }
  };
  std::thread([] {
    static thread_local Runs runs;
    (void)runs;
  }).join();
  return 0;
}
CASE(out_of_memory) {
  try {
    std::unique_ptr<char[]> much(new char[~0UL >> 2]);
    std::puts(much ? "some" : "none");
  } catch (const std::bad_alloc &e) {
    std::puts(e.what());
  }
  return 0;
}
CASE(exception_while_unwinding) {
  struct Throws {
    ~Throws() noexcept(false) {
      throw 2;
    }
  };
  std::fflush(stdout);
  try {
    Throws throws;
    throw 1;
  } catch (...) {
  }
  return 0;
}
CASE(exit_while_unwinding) {
  struct Exits {
    ~Exits() {
      std::exit(31);
    }
  };
  Told told{"never"};
  try {
    Exits exits;
    throw 1;
  } catch (...) {
  }
  return 0;
}
CASE(thread_is_not_joined) {
  std::fflush(stdout);
  std::thread thread([] { pause(); });
  return 0;
}

//! Outputs to destinations that are not simply new files: links, pipes, open descriptors, full disks, closed folders.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::shop::{GRAPHPATCH, Shop, graphpatch, run};

const SEED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/fuzz/seeds/graph-tuple.json"
);

fn view(options: &[&str]) -> Command {
    let mut command = Command::new(GRAPHPATCH);
    command.arg("view").arg(SEED).args(options);
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What lies in a folder, hidden files too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_link_stays_and_leads_to_the_output() {
    let shop = Shop::new();
    let (link, page) = (shop.path("latest.html"), shop.path("page.html"));
    symlink("page.html", &link).unwrap();
    for old in [false, true] {
        if old {
            fs::write(&page, "<html>old</html>").unwrap();
            fs::set_permissions(&page, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let output = run(&mut view(&["-o", link.to_str().unwrap()]));
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert!(link.is_symlink() && !page.is_symlink());
        assert!(fs::metadata(&page).unwrap().len() > 1000);
    }
    let mode = fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a private file stays private");
    symlink("circle.html", shop.path("circle.html")).unwrap();
    let circle = shop.path("circle.html");
    let output = run(&mut view(&["-o", circle.to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
}

/// A link may lead to a file that does not exist yet: the output becomes that file.
#[test]
fn two_names_of_one_coming_file_are_refused() {
    let shop = Shop::new();
    symlink("values", shop.path("link")).unwrap();
    let output = run(Command::new(GRAPHPATCH)
        .args(["run", "--graph", "link", "--probe", "a", "--save", "values"])
        .args(["--", "true"])
        .current_dir(shop.path("")));
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("is the file of --graph, too"));
}

#[test]
fn what_is_open_already_is_written_into() {
    let shop = Shop::new();
    let file = shop.path("graph.dot");
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let mut out = fs::File::options()
            .append(true)
            .create(true)
            .open(&file)
            .unwrap();
        out.write_all(b"// before\n").unwrap();
        let mut command = view(&["--dot", "-o", name]);
        command.stdout(out.try_clone().unwrap());
        let status = command.stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{name}");
        out.write_all(b"// behind\n").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("// before\ndigraph") && text.ends_with("}\n// behind\n"),
            "{name}: {text}"
        );
        fs::remove_file(&file).unwrap();
        assert_eq!(names(&shop.path("")), [""; 0]);
    }
}

/// An output to a pipe is written into the pipe. A file that replaced the pipe would have no reader.
#[test]
fn a_pipe_stays_a_pipe() {
    use std::os::unix::fs::FileTypeExt;
    let shop = Shop::new();
    let pipe = shop.path("out.html");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    let output = run(&mut view(&["-o", pipe.to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(reader.join().unwrap().contains("</html>"));
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(names(&shop.path("")), ["out.html"]);
}

/// On a full disk or above a limit of the file size, the command reports an error and the old file stays.
#[test]
fn what_cannot_be_written_whole_leaves_the_old_file() {
    let shop = Shop::new();
    let page = shop.path("page.html");
    let old = "<html>old</html>";
    fs::write(&page, old).unwrap();
    let mut command = view(&["-o", page.to_str().unwrap()]);
    // SAFETY: setrlimit is async-signal-safe and reads a local.
    unsafe {
        command.pre_exec(|| {
            let small = libc::rlimit {
                rlim_cur: 512,
                rlim_max: 512,
            };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &small) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    // The limit does not affect the command's messages, which go to pipes.
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(
        told(&output).contains("cannot be written"),
        "{}",
        told(&output)
    );
    assert_eq!(fs::read_to_string(&page).unwrap(), old);
    assert_eq!(names(&shop.path("")), ["page.html"]);
    let output = run(&mut view(&["--dot", "-o", "/dev/full"]));
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(
        told(&output).contains("no space is left on its disk"),
        "{}",
        told(&output)
    );
}

/// The last report is written when the program ends. Above the program's limit for files, the report is lost, but the program
/// is not killed. The program's own handling of SIGXFSZ stays: a too long file of its own kills it as without us.
#[test]
fn a_report_above_the_file_limit_does_not_end_the_program() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let source = "#include <signal.h>\n#include <stdio.h>\n#include <sys/resource.h>\n#include <unistd.h>\n\
         int main(int argc, char **argv) {\n\
           struct rlimit small = {1, 1};\n\
           setrlimit(RLIMIT_FSIZE, &small);\n\
           if (argc > 1) { FILE *file = fopen(argv[1], \"w\"); fputs(\"too long\", file); fclose(file); }\n\
           return 5;\n\
         }";
    let flags = [
        "-Ltorch/lib",
        "-Wl,--no-as-needed",
        "-ltorch_cpu",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN/torch/lib",
    ];
    let program = shop.program(source, "ends", &flags);
    let graph = shop.path("g.json");
    for (argument, code) in [(None, 5), (Some("written"), 128 + libc::SIGXFSZ)] {
        let mut command = graphpatch(&["--graph", graph.to_str().unwrap()]);
        command.arg(&program).args(argument);
        let output = run(command.current_dir(shop.path("")));
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains("ran untouched") && !graph.exists());
    }
}

/// If the user may not write into a folder, the command says so before the program starts. (Root may write everywhere.)
#[test]
fn a_folder_that_may_not_be_written_is_found_out_before() {
    let shop = Shop::new();
    let folder = shop.path("closed");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(shop.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    // The command is copied, because the other user may have no access to the folder in which it was built.
    let (program, seed) = (shop.path("graphpatch"), shop.path("seed.json"));
    // `cp` copies it: a process that another test starts meanwhile would inherit a file that this process writes, and a file
    // that somebody has open for writing cannot be run.
    let copied = Command::new("cp").arg(GRAPHPATCH).arg(&program).status();
    assert!(copied.unwrap().success());
    fs::copy(SEED, &seed).unwrap();
    let seed = seed.display().to_string();
    let mark = shop.path("ran");
    let page = folder.join("page.html").display().to_string();
    let graph = folder.join("g.json").display().to_string();
    let table = folder.join("t.csv").display().to_string();
    let touch = format!("touch {}", mark.display());
    let sweep = ["sweep", "--nodes", "a", "--metric", "regex:x", "-o", &table];
    let commands: [Vec<&str>; 3] = [
        vec!["view", &seed, "-o", &page],
        vec!["run", "--graph", &graph, "--", "sh", "-c", &touch],
        [&sweep[..], &["--", "sh", "-c", &touch]].concat(),
    ];
    for arguments in commands {
        let mut command = Command::new(&program);
        command.args(&arguments);
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(65534).gid(65534);
        }
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(
            told(&output).contains("cannot be written: permission denied"),
            "{}",
            told(&output)
        );
    }
    assert!(!mark.exists());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The journal of a sweep lies beside its table. Like other outputs, it must not overwrite a file of the user's.
#[test]
fn the_journal_of_a_sweep_costs_no_file() {
    let shop = Shop::new();
    let journal = shop.path("t.csv.journal");
    let sweep = |options: &[&str]| {
        let mut command = Command::new(GRAPHPATCH);
        command.args([
            "sweep", "--nodes", "a", "--metric", "regex:x", "-o", "t.csv",
        ]);
        command.args(options).args(["--", "true"]);
        run(command.current_dir(shop.path("")))
    };
    let output = sweep(&["--heat-map", "t.csv.journal"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("t.csv.journal"), "{}", told(&output));
    fs::write(&journal, "dear diary\n").unwrap();
    for options in [&[][..], &["--restart"]] {
        let output = sweep(options);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert_eq!(fs::read_to_string(&journal).unwrap(), "dear diary\n");
    }
}

//! Programs in user namespaces, as containers and sandboxes make them. In one that knows none of the machine's users, the kernel shows
//! every file's owner as the same user that the program itself seems to be.

use std::process::Command;

use crate::others::need_root;
use crate::shop::*;
use crate::stand_ins::*;

/// Whether this machine lets a program make such a namespace. Many containers do not.
fn has_namespaces() -> bool {
    let made = Command::new("unshare").args(["--user", "true"]).status();
    made.is_ok_and(|status| status.success())
}

/// Everybody's files look like the program's own there, so none of them is taken for its own.
#[test]
fn files_of_users_whom_nobody_knows_are_not_loaded() {
    if !has_namespaces() {
        eprintln!("not tried: no user namespace can be made here");
        return;
    }
    need_root();
    let setup = Setup::new();
    let name = adapter_name(&setup);
    foreign_adapter(&setup.shop, "ahead", &name);
    for variable in ["GRAPHPATCH_ADAPTER_DIR", "GRAPHPATCH_CACHE"] {
        let start = |namespace: &[&str]| {
            // The program itself has the namespace: the command is outside.
            let mut command = graphpatch(&["--tree"]);
            command.args(namespace).arg(&setup.program).arg("none");
            setup
                .environment(&mut command)
                .env(variable, setup.shop.path("ahead"));
            let done = run(&mut command);
            assert_eq!(text(&done.stdout), "2 none\nbye\n");
            assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
            text(&done.stderr)
        };
        // Root's and this user's own adapter is taken.
        assert!(start(&[]).contains(FOREIGN), "{variable}");
        assert!(start(&["unshare", "--user", "--map-root-user"]).contains(FOREIGN));
        let said = start(&["unshare", "--user"]);
        assert!(!said.contains(FOREIGN), "{variable}: {said}");
        assert!(said.contains("user namespace does not know"), "{said}");
    }
}

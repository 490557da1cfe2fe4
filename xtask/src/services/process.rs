//! Finds and ends processes, on nothing but `/proc`, `ps`, `id` and `sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Finds the process whose program is `program` and one of whose arguments ends with `marker`.
///
/// A pid file would outlive a `kill -9` and name somebody else's process; arguments cannot.
pub(crate) fn find(program: &str, marker: &str) -> Option<u32> {
    all().into_iter().find_map(|(pid, args)| {
        let (first, rest) = args.split_first()?;
        let name = Path::new(first).file_name()?;
        (name == program && rest.iter().any(|arg| arg.ends_with(marker))).then_some(pid)
    })
}

/// Whether a process has given itself a title that starts so, as `PostgreSQL`'s do.
pub(crate) fn is_any_titled(start: &str) -> bool {
    all().iter().any(|(_, args)| args.first().is_some_and(|title| title.starts_with(start)))
}

/// Sends SIGTERM to `pid`, then SIGKILL if `is_gone` does not come true within `patience`.
pub(crate) fn end(pid: u32, patience: Duration, is_gone: impl Fn() -> bool) {
    signal("TERM", pid);
    if !wait_until(patience, &is_gone) {
        signal("KILL", pid);
        wait_until(Duration::from_secs(5), &is_gone);
    }
}

/// Asks `is_so` until it says yes (then true) or `patience` is over (then false).
pub(crate) fn wait_until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
}

/// Whether `command` can be run and exits with 0; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// The standard output of `command`, trimmed, if it exits with 0.
pub(crate) fn read(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The uid of the user named `name`, or of this process.
pub(crate) fn uid(name: Option<&str>) -> Option<u32> {
    read(Command::new("id").arg("-u").args(name))?.parse().ok()
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    uid(None) == Some(0)
}

/// The first file on `PATH` that is named `program`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Every process with its arguments. A zombie has none, and so is never found.
fn all() -> Vec<(u32, Vec<String>)> {
    let Ok(proc) = fs::read_dir("/proc") else {
        return all_by_ps();
    };
    proc.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, line.split(|byte| *byte == 0).map(lossy).collect()))
    })
    .collect()
}

fn all_by_ps() -> Vec<(u32, Vec<String>)> {
    let list = read(Command::new("ps").args(["-axww", "-o", "pid=,args="])).unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        Some((pid, words.map(str::to_owned).collect()))
    };
    list.lines().filter_map(parse).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(name: &str, pid: u32) {
    // The shell's own kill: a bare Debian has no /bin/kill.
    succeeds(Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()]));
}

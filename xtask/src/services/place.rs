//! The folder of one private server, and the account that it runs under.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use super::process;
use crate::error::{Error, Result};
use crate::workspace;

/// The folder of one private server, and the account that it runs under.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    account: Option<Account>,
    /// An argument of the server's command line that no other server has.
    pub(crate) marker: String,
    /// A number that differs from workspace to workspace.
    pub(crate) seed: u64,
}

#[derive(Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Place {
    /// The place of the server `name`: a folder under `target`, or one that its account can enter.
    ///
    /// Root does not run the server itself (`PostgreSQL` would refuse) but has an account do it:
    /// the one called `account` where there is one, else nobody.
    pub(crate) fn of(name: &str, account: &str) -> Self {
        let seed = hash(workspace::root().as_os_str().as_encoded_bytes());
        let account = process::is_root().then(|| Account::first_of(&[account, "nobody"])).flatten();
        let target = workspace::target();
        let base = if account.as_ref().is_none_or(|account| account.can_enter(&target)) {
            target.join("services")
        } else {
            env::temp_dir().join(format!("amends-services-{seed:016x}"))
        };
        let marker = format!("amends-{:016x}", hash(base.as_os_str().as_encoded_bytes()));
        Self { dir: base.join(name), account, marker, seed }
    }

    /// Makes the folder, and says so if it is not where one would look for it.
    pub(crate) fn create(&self) -> Result<()> {
        let failed = || Error::io(format!("create {}", self.dir.display()));
        fs::create_dir_all(&self.dir).map_err(failed())?;
        if !self.dir.starts_with(workspace::target()) {
            eprintln!("the server's account cannot enter target, so its data is in {}", self.dir.display());
            self.refuse_folder_of_others()?;
        }
        self.give_all().map_err(failed())
    }

    /// Gives the folder to the account, with all that another account has made in it.
    fn give_all(&self) -> io::Result<()> {
        let Some(Account { uid, gid }) = self.account else {
            return Ok(());
        };
        let is_new = fs::read_dir(&self.dir)?.next().is_none();
        if !is_new && fs::metadata(&self.dir)?.uid() != uid {
            // A target folder that outlives its container meets accounts with other numbers.
            process::succeeds(Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(&self.dir));
        }
        self.give(&self.dir)
    }

    /// The name in the temporary folder can be guessed: what someone else put there is not used.
    fn refuse_folder_of_others(&self) -> Result<()> {
        let base = self.dir.parent().unwrap_or(&self.dir);
        let owner = fs::symlink_metadata(base).map_err(Error::io(format!("look at {}", base.display())))?.uid();
        if process::uid(None) == Some(owner) {
            return Ok(());
        }
        Err(Error::failed(format!("{} belongs to another user", base.display())))
    }

    /// The path of the file `name` in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file that the server's account can read, and no other.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<()> {
        let write = || {
            // An account may not overwrite a file that it made read-only; removing always works.
            fs::remove_file(path).or_else(ignore_not_found)?;
            fs::write(path, text)?;
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            self.give(path)
        };
        write().map_err(Error::io(format!("write {}", path.display())))
    }

    /// Writes a file of 32 random hexadecimal digits, unless it is there.
    pub(crate) fn write_secret(&self, path: &Path) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let mut bytes = [0; 16];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(Error::io("read /dev/urandom"))?;
        self.write(path, &format!("{:032x}", u128::from_ne_bytes(bytes)))
    }

    /// A fresh file for the server's output; the last one is kept as `….old`.
    pub(crate) fn log(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.path(name);
        let create = || {
            fs::rename(&path, self.path(&format!("{name}.old"))).or_else(ignore_not_found)?;
            let file = File::create(&path)?;
            self.give(&path)?;
            Ok(file)
        };
        let file = create().map_err(Error::io(format!("write {}", path.display())))?;
        Ok((path, file))
    }

    /// A command run under the server's account, with nothing of our environment but `PATH`.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir)
            .env("LANG", "C.UTF-8")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        if let Some(Account { uid, gid }) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.account {
            Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

impl Account {
    fn first_of(names: &[&str]) -> Option<Self> {
        names.iter().find_map(|name| {
            let uid = process::uid(Some(name))?;
            let gid = process::read(Command::new("id").args(["-g", name]))?.parse().ok()?;
            Some(Self { uid, gid })
        })
    }

    /// Whether the account can reach `dir`; asked of the kernel, as ACLs and mounts count too.
    fn can_enter(&self, dir: &Path) -> bool {
        let mut test = Command::new("sh");
        test.args(["-c", "test -x \"$1\"", "sh"]).arg(dir).current_dir("/");
        process::succeeds(test.uid(self.uid).gid(self.gid))
    }
}

fn ignore_not_found(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// FNV-1a: the same in every version of Rust, as what is named by it must be found again.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

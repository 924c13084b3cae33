//! The processes and the private directory of the demo, and their cleanup.
//!
//! Each process has a process group of its own, so that Ctrl-C reaches only the demo, which then
//! ends all processes. If the demo itself is killed, the kernel ends them, as each has asked it to
//! ([`end_with_demo`]), and a shell removes the directory, in which the processes have their keys.
//! stdout and stderr of a process go to files in the directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal,
};

use crate::config::EnvVars;

/// Set for the processes of the demo: the process id of the demo.
const DEMO: &str = "OC_DISCOVERY_DEMO";

/// The process that removes the directory of a demo that was killed.
const CLEANER: &str = "cleaner";
/// The pipe, of which the demo alone has the other end, ends with the demo, a moment before the
/// kernel has ended the other processes.
const CLEANING: &str = "read -r _; sleep 1; rm -rf -- \"$0\"";

/// Bytes of the end of a log that are read and shown at most.
const TAIL_BYTES: u64 = 4096;
/// Lines of a log that are shown at most.
const TAIL_LINES: usize = 12;
/// Bytes of a process's stdout that are read at most.
const STDOUT_BYTES: u64 = 65_536;

/// A process of the demo ends with it from now on, also after SIGKILL, and if it is stopped. Any
/// other process does not change.
///
/// # Errors
/// The demo has ended already.
pub(crate) fn end_with_demo(env: EnvVars<'_>) -> io::Result<()> {
    let Some(demo) = env(DEMO) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match demo == *parent_id().to_string() {
        true => Ok(()),
        false => Err(io::Error::other(
            "the demo that this process is of has ended",
        )),
    }
}

/// A private directory and the processes that use it. Dropping it ends the processes and removes
/// the directory.
pub(super) struct Stage {
    dir: PathBuf,
    /// Shared only with the panic hook.
    processes: Arc<Mutex<BTreeMap<&'static str, Child>>>,
}

impl Stage {
    /// Makes a directory of mode 0700 with an unpredictable name.
    pub(super) fn set_up(base: &Path) -> io::Result<Stage> {
        let name = getrandom::u64().map_err(io::Error::other)?;
        let dir = base.join(format!("oc-discovery-demo-{name:016x}"));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let mut processes = BTreeMap::new();
        // Where there is no shell, as in a container of this program alone, the directory would
        // stay.
        if let Ok(cleaner) = clean_later(&dir) {
            processes.insert(CLEANER, cleaner);
        }
        Ok(Stage {
            dir,
            processes: Arc::new(Mutex::new(processes)),
        })
    }

    /// The private directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory of a process.
    pub(super) fn data_dir(&self, process: &str) -> PathBuf {
        self.dir.join(process)
    }

    /// Starts a process.
    pub(super) fn start<S: AsRef<OsStr>>(
        &self,
        process: &'static str,
        executable: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> io::Result<()> {
        let mut processes = self.processes();
        let child = Command::new(executable)
            .args(args)
            // The files of this system are not for the demo.
            .env("CONFIGURATION_DIRECTORY", &self.dir)
            .env(DEMO, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(File::create(self.stdout_file(process))?)
            .stderr(File::create(self.log_file(process))?)
            .process_group(0)
            .spawn()?;
        processes.insert(process, child);
        Ok(())
    }

    /// Stops a process (SIGSTOP): its connections stay open, but it sends nothing any more.
    pub(super) fn freeze(&self, process: &str) -> io::Result<()> {
        match self.processes().get(process) {
            Some(child) => Ok(kill_process(Pid::from_child(child), Signal::STOP)?),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the kernel has stopped a process (proc_pid_stat(5): the state follows the name).
    pub(super) fn is_frozen(&self, process: &str) -> bool {
        let Some(pid) = self.processes().get(process).map(Child::id) else {
            return false;
        };
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T')))
    }

    /// The first process that has ended, and its status.
    pub(super) fn first_ended(&self) -> Option<(&'static str, String)> {
        self.processes()
            .iter_mut()
            .find_map(|(process, child)| match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some((*process, status.to_string())),
                Err(error) => Some((*process, error.to_string())),
            })
    }

    /// What a process has printed on stdout so far.
    pub(super) fn stdout(&self, process: &str) -> String {
        read(&self.stdout_file(process), 0, STDOUT_BYTES).unwrap_or_default()
    }

    /// The last lines that a process has logged.
    pub(super) fn log_tail(&self, process: &str) -> String {
        let path = self.log_file(process);
        let from = fs::metadata(&path).map_or(0, |meta| meta.len().saturating_sub(TAIL_BYTES));
        let text = read(&path, from, TAIL_BYTES).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        lines.get(skipped..).unwrap_or_default().join("\n")
    }

    /// Ends every process and removes every file.
    pub(super) fn clear(&self) -> io::Result<()> {
        clear(&mut self.processes(), &self.dir)
    }

    /// Clears up in a panic hook too, because a release build aborts on a panic without running any
    /// `drop`.
    pub(super) fn clear_on_panic(&self) {
        let processes = Arc::clone(&self.processes);
        let dir = self.dir.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let mut processes = match processes.try_lock() {
                Ok(processes) => processes,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            // The panic is reported anyway, so this error is ignored.
            let _ = clear(&mut processes, &dir);
        }));
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<&'static str, Child>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stdout_file(&self, process: &str) -> PathBuf {
        self.dir.join(format!("{process}.out"))
    }

    fn log_file(&self, process: &str) -> PathBuf {
        self.dir.join(format!("{process}.log"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Code that needs the error calls `clear` itself.
        let _ = self.clear();
    }
}

/// Starts the process that removes the directory when this one is gone.
fn clean_later(dir: &Path) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", CLEANING])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn clear(processes: &mut BTreeMap<&'static str, Child>, dir: &Path) -> io::Result<()> {
    for child in processes.values_mut() {
        // After a process has been waited for, another process may have its id.
        if let Ok(None) = child.try_wait() {
            // It fails only if the group is gone already.
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            child.wait()?;
        }
    }
    processes.clear();
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path, from: u64, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

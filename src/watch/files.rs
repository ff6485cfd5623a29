//! When to read the topology again. Any event near it means "read and compare": which one it was tells nothing, as an
//! editor renames, a ConfigMap swaps a symbolic link, and a directory comes back as another.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::statfs;
use rustix::io::Errno;

/// File systems that tell nobody of what others change (`include/uapi/linux/magic.h`): NFS, SMB, CIFS, 9P, FUSE, AFS,
/// Ceph, and User-mode Linux's hostfs.
const SILENT: [u32; 9] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x6573_5546,
    0x5346_414f,
    0x00c3_6400,
    0x00c0_ffee,
];
/// How often a file is read that nobody tells of.
const POLL: Duration = Duration::from_secs(2);
/// Symbolic links that lead to one another, at most (the kernel's own limit).
const MOST_LINKS: usize = 40;

/// What may make another topology. Not that a file was opened or read: the daemon does so itself, and in `/etc` everybody
/// does.
const CHANGES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF);

/// The directories from which a topology may change.
pub struct Files {
    path: PathBuf,
    /// The files that the topology names for its lists.
    lists: Vec<PathBuf>,
    inotify: OwnedFd,
    /// The kernel's numbers of the directories that are watched: one that returns under its old name has another.
    watched: BTreeSet<i32>,
    /// Why the files have to be read again and again.
    silent: Option<String>,
}

impl Files {
    /// Watches a file or directory.
    ///
    /// # Errors
    /// Too many instances of inotify.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            lists: Vec::new(),
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            watched: BTreeSet::new(),
            silent: None,
        })
    }

    /// Whether something has changed; forgets it.
    pub fn has_changed(&self) -> bool {
        let mut buffer = [0; 4096];
        let mut changed = false;
        loop {
            match rustix::io::read(&self.inotify, &mut buffer) {
                Ok(_) => changed = true,
                Err(Errno::INTR) => {}
                Err(_) => return changed,
            }
        }
    }

    /// Follows the path anew: links may lead elsewhere, directories may be others of the same name.
    pub fn follow(&mut self) {
        let paths = [&self.path].into_iter().chain(&self.lists);
        let wanted: BTreeSet<PathBuf> = paths.flat_map(|path| directories(path)).collect();
        self.silent = wanted.iter().find_map(|directory| silent(directory));
        let mut watched = BTreeSet::new();
        for directory in &wanted {
            // Also what is watched already: under the same name there may be another directory now.
            match inotify::add_watch(&self.inotify, directory, CHANGES | WatchFlags::ONLYDIR) {
                Ok(number) => {
                    watched.insert(number);
                }
                Err(error) => {
                    self.silent = Some(format!("{}: {error}", directory.display()));
                }
            }
        }
        for gone in self.watched.difference(&watched) {
            // It may be gone altogether.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        self.watched = watched;
    }

    /// Follows these besides the path. Whether they are others than before.
    pub fn follow_also(&mut self, lists: &[PathBuf]) -> bool {
        let others = self.lists != lists;
        if others {
            self.lists = lists.to_vec();
            self.follow();
        }
        others
    }

    /// Why events can't be relied on; `None`: they can.
    pub fn silent(&self) -> Option<&str> {
        self.silent.as_deref()
    }

    /// How often to look without an event.
    pub fn poll(&self) -> Option<Duration> {
        self.silent.is_some().then_some(POLL)
    }
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The directories in which something decides what `path` holds: its own, that of each link on the way, and the path
/// itself where it is one. What doesn't exist is represented by the nearest that does.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut way = vec![path.to_owned()];
    if let Ok(entries) = std::fs::read_dir(path) {
        found.insert(path.to_owned());
        way.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|entry| entry.is_symlink()),
        );
    }
    let mut links = 0;
    while let Some(path) = way.pop() {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => continue,
        };
        found.extend(nearest(parent));
        // Each part of the path may be a link: a ConfigMap's is in the middle.
        for part in path.ancestors() {
            if let Ok(target) = std::fs::read_link(part)
                && links < MOST_LINKS
            {
                links += 1;
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                let base = part.parent().unwrap_or(Path::new("."));
                let target = base.join(target);
                way.push(if rest.as_os_str().is_empty() {
                    target
                } else {
                    target.join(rest)
                });
            }
        }
    }
    found
}

fn nearest(directory: &Path) -> Option<PathBuf> {
    let mut candidates = directory.ancestors();
    candidates.find(|path| path.is_dir()).map(Path::to_owned)
}

fn silent(directory: &Path) -> Option<String> {
    let magic = statfs(directory).ok()?.f_type;
    // As wide as the architecture has it.
    let magic = u32::try_from(magic & 0xffff_ffff).ok()?;
    SILENT.contains(&magic).then(|| {
        format!(
            "{} is on a file system that tells of no changes",
            directory.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// A topology's files in a place of their own, and what tells of changes.
    struct Place {
        directory: tempfile::TempDir,
        files: Files,
    }

    impl Place {
        fn new(name: &str, prepare: impl Fn(&Path)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            prepare(directory.path());
            let mut files = Files::new(&directory.path().join(name)).unwrap();
            files.follow();
            Self { directory, files }
        }

        /// Something happens, and is told.
        fn is_told(&mut self, act: impl Fn(&Path)) {
            act(self.directory.path());
            assert!(self.hears(10), "nothing was told");
            self.files.follow();
            // What came of following itself.
            self.files.has_changed();
        }

        fn hears(&self, seconds: i64) -> bool {
            let limit = Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            };
            let mut files = [PollFd::new(&self.files, PollFlags::IN)];
            poll(&mut files, Some(&limit)).unwrap();
            self.files.has_changed()
        }
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_write_a_rename_a_deletion_and_a_return_are_told() {
        let mut place = Place::new("hq.yaml", |d| write(&d.join("hq.yaml"), "a"));
        place.is_told(|d| write(&d.join("hq.yaml"), "b"));
        place.is_told(|d| {
            write(&d.join(".hq.yaml.tmp"), "c");
            fs::rename(d.join(".hq.yaml.tmp"), d.join("hq.yaml")).unwrap();
        });
        place.is_told(|d| fs::remove_file(d.join("hq.yaml")).unwrap());
        place.is_told(|d| write(&d.join("hq.yaml"), "d"));
    }

    /// Else the daemon would wake itself for ever.
    #[test]
    fn reading_is_not_told() {
        let mut place = Place::new("hq.d", |d| {
            fs::create_dir(d.join("hq.d")).unwrap();
            write(&d.join("hq.d/1.yaml"), "a");
        });
        place.files.follow();
        fs::read_dir(place.directory.path().join("hq.d")).unwrap();
        fs::read(place.directory.path().join("hq.d/1.yaml")).unwrap();
        assert!(!place.hears(0));
    }

    /// As the kubelet does it: the file is a link into `..data`, and that is a link that is swapped.
    #[test]
    fn a_swapped_link_is_told() {
        let mut place = Place::new("hq.yaml", |d| {
            fs::create_dir(d.join("..1")).unwrap();
            write(&d.join("..1/hq.yaml"), "a");
            symlink("..1", d.join("..data")).unwrap();
            symlink("..data/hq.yaml", d.join("hq.yaml")).unwrap();
        });
        place.is_told(|d| {
            fs::create_dir(d.join("..2")).unwrap();
            write(&d.join("..2/hq.yaml"), "b");
            symlink("..2", d.join("..data_tmp")).unwrap();
            fs::rename(d.join("..data_tmp"), d.join("..data")).unwrap();
        });
        place.is_told(|d| write(&d.join("..2/hq.yaml"), "c"));
    }

    #[test]
    fn a_directory_is_told_also_when_it_returns() {
        let mut place = Place::new("hq.d/files", |d| {
            fs::create_dir_all(d.join("hq.d/files")).unwrap();
            write(&d.join("hq.d/files/1.yaml"), "a");
        });
        place.is_told(|d| write(&d.join("hq.d/files/2.yaml"), "b"));
        place.is_told(|d| fs::remove_file(d.join("hq.d/files/1.yaml")).unwrap());
        place.is_told(|d| fs::remove_dir_all(d.join("hq.d")).unwrap());
        place.is_told(|d| fs::create_dir(d.join("hq.d")).unwrap());
        place.is_told(|d| fs::create_dir(d.join("hq.d/files")).unwrap());
        place.is_told(|d| write(&d.join("hq.d/files/1.yaml"), "c"));
    }

    #[test]
    fn links_that_lead_in_circles_end() {
        let directory = tempfile::tempdir().unwrap();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        assert_eq!(directories(&directory.path().join("a")).len(), 1);
    }
}

//! A host kept as its topology says, for as long as the process runs.
//!
//! Whatever happens (the file, the kernel, a signal, the clock) only wakes the same pass that `apply` makes; nothing is
//! decided from an event. One thread waits for all of them, so an idle daemon sleeps.

mod board;
mod damping;
mod files;
mod http;
mod manager;
mod report;
mod source;
mod wake;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::kernel::{self, Kernel, Monitor, News};
use crate::lock::{self, Lock, Presence};
use crate::reconcile::{self, Goal, Kept};
use board::{Board, Shared};
use damping::Damping;
use files::Files;
use http::Server;
pub use http::{Listen, status_schema};
use manager::Manager;
use report::{Reporter, Trigger};
pub use source::{Contents, Origin};
use source::{Loaded, Source};
use wake::{Wake, Woken};

/// How long the kernel's news may gather before they are looked at: one command often makes several.
const SETTLE: Duration = Duration::from_millis(10);
/// A writer that never pauses is read after so many times the pause that would have been waited for.
const MOST_PAUSES: u32 = 10;
/// How often a file is tried that can't be used while there is nothing else.
const UNTIL_GOOD: Duration = Duration::from_secs(5);
/// Passes that find nothing to do take at most this part of the time: one tenth.
const IDLE_SHARE: u32 = 9;

/// What to do when the daemon is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Leave the network as it is.
    Leave,
    /// Take away what the topology owns.
    Destroy,
}

/// How to watch.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file or directory whose changes to follow.
    pub path: PathBuf,
    /// The network namespace to work in; `None`: the caller's.
    pub netns: Option<String>,
    /// How often to look although nothing was told.
    pub resync: Duration,
    /// How long a file must be left alone before it's read.
    pub debounce: Duration,
    /// How long to wait for another run in the namespace.
    pub lock_timeout: Duration,
    /// Take over what exists without our mark.
    pub adopt: bool,
    /// Let a topology that holds nothing delete everything.
    pub allow_empty: bool,
    /// What to do at the end.
    pub on_exit: OnExit,
    /// Where to answer over HTTP; `None`: nowhere.
    pub listen: Option<Listen>,
}

/// Why there is no daemon, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel can't be asked.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A pass couldn't be made.
    #[error(transparent)]
    Pass(#[from] reconcile::Error),
    /// Somebody else is there.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The process can't be told of signals or files.
    #[error("can't wait for signals and files")]
    Wait(#[source] std::io::Error),
    /// Nobody can be answered over HTTP.
    #[error("can't listen on {address}")]
    Listen {
        /// Where.
        address: Listen,
        /// Why.
        source: std::io::Error,
    },
}

/// Keeps the host until a signal ends it.
///
/// # Errors
/// Only what makes going on pointless. What the kernel refuses, a bad file, a busy lock are logged and tried again.
pub fn watch(options: &Options, origin: impl Origin) -> Result<(), Error> {
    let mut kernel = Kernel::open(options.netns.as_deref())?;
    let mut wake = Wake::new().map_err(Error::Wait)?;
    let files = Files::new(&options.path, wake.file_end().map_err(Error::Wait)?);
    let source = Source::new(origin, options.adopt, options.allow_empty);
    let server = Server::start(options, source.name())?;
    let mut daemon = Daemon {
        options,
        source,
        files,
        monitor: None,
        presence: None,
        damping: Damping::default(),
        reporter: Reporter::default(),
        manager: Manager::new(),
        board: server.as_ref().map(Server::board),
        due: Due::at_start(options.resync),
    };
    loop {
        let now = Instant::now();
        daemon.publish(|board| board.turned = now);
        if daemon.due.file.is_some_and(|file| file.at <= now) {
            daemon.load(&mut kernel)?;
        }
        if let Some(trigger) = daemon.due.trigger(now) {
            daemon.pass(&mut kernel, trigger)?;
        }
        let limit = daemon.timeout();
        let woken = wake.wait(daemon.monitor.as_ref(), limit);
        match woken.map_err(Error::Wait)? {
            Woken { stop: true, .. } => return daemon.stop(&mut kernel),
            woken => daemon.note(woken)?,
        }
    }
}

struct Daemon<'a, O> {
    options: &'a Options,
    source: Source<O>,
    files: Files,
    /// Since there is a topology, whose routes to listen for.
    monitor: Option<Monitor>,
    presence: Option<Presence>,
    damping: Damping,
    reporter: Reporter,
    manager: Manager,
    /// Where somebody asks over HTTP.
    board: Option<Shared>,
    due: Due,
}

/// What has to be done, and when.
struct Due {
    file: Option<Pause>,
    pass: Option<(Instant, Trigger)>,
    resync: Instant,
    /// Before this the kernel's news wait.
    rested: Instant,
}

/// A pause that a writer has to make.
#[derive(Clone, Copy)]
struct Pause {
    first: Instant,
    at: Instant,
}

impl Due {
    fn at_start(resync: Duration) -> Self {
        let now = Instant::now();
        Self {
            file: Some(Pause {
                first: now,
                at: now,
            }),
            pass: None,
            // The first pass is the file's.
            resync: now + resync,
            rested: now,
        }
    }

    fn file_changed(&mut self, debounce: Duration) {
        let now = Instant::now();
        let first = self.file.map_or(now, |pause| pause.first);
        let at = (now + debounce).min(first + debounce * MOST_PAUSES);
        self.file = Some(Pause { first, at });
    }

    fn pass_at(&mut self, at: Instant, trigger: Trigger) {
        if self.pass.as_ref().is_none_or(|(known, _)| at < *known) {
            self.pass = Some((at, trigger));
        }
    }

    fn trigger(&mut self, now: Instant) -> Option<Trigger> {
        match self.pass {
            Some((at, trigger)) if at <= now => Some(trigger),
            _ if self.resync <= now => Some(Trigger::Resync),
            _ => None,
        }
    }
}

impl<O: Origin> Daemon<'_, O> {
    /// Reads the file again; a new topology is applied at once.
    fn load(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        self.due.file = None;
        // First, so that what changes while it's read is told.
        self.files.follow();
        let before = self.source.good().map(|good| good.terms.clone());
        match self.source.load(kernel) {
            Loaded::Same => {}
            Loaded::New => {
                self.damping.forget();
                self.listen(kernel, before.map(|terms| terms.protocol))?;
                if let (Some(board), Some(good)) = (&self.board, self.source.good()) {
                    board.with(|board| board.load(good));
                }
                self.due.pass_at(Instant::now(), Trigger::File);
            }
            Loaded::Bad => self.reporter.bad_file(
                &self.source.name(),
                self.source.error().unwrap_or_default(),
                self.source.good().is_some(),
            ),
        }
        if let Some(why) = self.files.silent() {
            self.reporter.polls(why);
        }
        let every = match self.source.good() {
            Some(_) => self.files.poll(),
            // What a node is may be known only once it has its address.
            None => Some(UNTIL_GOOD),
        };
        if let Some(every) = every {
            let at = Instant::now() + every;
            self.due.file = Some(Pause { first: at, at });
        }
        self.tell();
        Ok(())
    }

    /// Listens for the routes of the topology in force.
    fn listen(&mut self, kernel: &mut Kernel, before: Option<u8>) -> Result<(), Error> {
        let Some(good) = self.source.good() else {
            return Ok(());
        };
        let protocol = good.terms.protocol;
        if before != Some(protocol) {
            let netns = self.options.netns.as_deref();
            self.monitor = Some(Monitor::open(netns, kernel, protocol)?);
        }
        self.presence = None;
        self.presence = Some(Presence::announce(
            kernel.namespace(),
            &good.terms.owner,
            &self.source.name(),
        )?);
        Ok(())
    }

    fn pass(&mut self, kernel: &mut Kernel, trigger: Trigger) -> Result<(), Error> {
        let start = Instant::now();
        self.due.pass = None;
        self.due.resync = start + self.options.resync;
        let Some(good) = self.source.good() else {
            return Ok(());
        };
        let lock = match Lock::take(kernel.namespace(), self.options.lock_timeout) {
            Ok(lock) => lock,
            Err(error) => {
                self.reporter.put_off(&error.to_string());
                self.publish(|board| board.put_off(trigger, start.elapsed()));
                self.due.pass_at(start + self.options.lock_timeout, trigger);
                return Ok(());
            }
        };
        let held = self.damping.held(start);
        let monitor = &mut self.monitor;
        let kept = reconcile::keep(kernel, &good.host, &good.terms, held, |_| {
            // What was told until now is in the snapshot that follows.
            monitor.as_mut().map_or(Ok(News::Nothing), Monitor::drain)?;
            Ok(())
        });
        drop(lock);
        match kept {
            Ok(kept) => self.passed(&kept, trigger, start),
            Err(reconcile::Error::Unmet(unmet)) => {
                self.reporter.put_off(&unmet.to_string());
                self.publish(|board| board.put_off(trigger, start.elapsed()));
            }
            Err(error) => return Err(error.into()),
        }
        let took = start.elapsed();
        self.due.rested = Instant::now() + took * IDLE_SHARE;
        self.tell();
        Ok(())
    }

    fn passed(&mut self, kept: &Kept, trigger: Trigger, start: Instant) {
        self.reporter
            .pass(kept, trigger, start.elapsed(), &mut self.damping);
        self.publish(|board| board.pass(kept, trigger, start.elapsed(), &self.damping));
        if let Some(turn) = self.damping.next_turn(Instant::now()) {
            self.due.pass_at(turn, Trigger::Retry);
        }
    }

    fn note(&mut self, woken: Woken) -> Result<(), Error> {
        let now = Instant::now();
        if woken.file {
            self.due.file_changed(self.options.debounce);
        }
        if woken.reload {
            self.manager.reloading();
            self.due.file = Some(Pause {
                first: now,
                at: now,
            });
            self.due.pass_at(now, Trigger::Signal);
        }
        if woken.kernel {
            let news = self
                .monitor
                .as_mut()
                .map_or(Ok(News::Nothing), Monitor::drain)?;
            let at = (now + SETTLE).max(self.due.rested);
            match news {
                News::Nothing => {}
                News::Change => self.due.pass_at(at, Trigger::Kernel),
                News::Overrun => {
                    self.publish(|board| board.overruns += 1);
                    self.due.pass_at(at, Trigger::Overrun);
                }
            }
        }
        Ok(())
    }

    /// How long there is nothing to do; `None`: until something happens.
    fn timeout(&mut self) -> Duration {
        let now = Instant::now();
        let dues = [
            self.due.file.map(|pause| pause.at),
            self.due.pass.as_ref().map(|(at, _)| *at),
            Some(self.due.resync),
            self.manager.next_sign_of_life(now),
        ];
        let next = dues.into_iter().flatten().min().unwrap_or(now);
        next.saturating_duration_since(now)
    }

    /// Tells the service manager, and who asks, how it stands.
    fn tell(&mut self) {
        let words = self
            .reporter
            .words(&self.source.name(), self.source.error());
        self.manager.status(&words, self.reporter.is_ready());
        if let Some(presence) = &mut self.presence {
            presence.tell(&words);
        }
        self.publish(|board| {
            board.ready = self.reporter.is_ready();
            board.error = self.source.error().map(str::to_owned);
            board.standing = words;
        });
    }

    /// For those who ask over HTTP.
    fn publish(&self, write: impl FnOnce(&mut Board)) {
        if let Some(board) = &self.board {
            board.with(write);
        }
    }

    fn stop(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        self.manager.stopping();
        tracing::info!("stopping: the network stays as it is");
        if let (OnExit::Destroy, Some(good)) = (self.options.on_exit, self.source.good()) {
            let _lock = Lock::take(kernel.namespace(), self.options.lock_timeout)?;
            let goal = Goal::Nothing(Some(&good.host));
            let pass = reconcile::apply(kernel, goal, &good.terms, |_| ())?;
            self.reporter.destroyed(&pass);
        }
        Ok(())
    }
}

//! A host kept as its topology says, for as long as the process runs.
//!
//! Whatever happens (the file, the kernel, a signal, the clock) only wakes the same pass that `apply` makes; nothing is
//! decided from an event. One thread waits for all of them, so an idle daemon sleeps.

mod board;
mod damping;
mod due;
mod files;
mod heed;
mod http;
mod manager;
mod options;
mod probing;
mod report;
mod source;
mod trial;
mod wake;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::desired::lookups;
use crate::kernel::{self, Interest, Kernel, Monitor, News, OnRefusal};
use crate::lock::{self, Lock, Presence};
use crate::plan::{Plan, Terms};
use crate::reconcile::{self, Goal, Kept};
use crate::state::Observed;
use crate::topology::Owner;
use crate::trial::Unconfirmed;
use board::{Board, Shared};
use damping::Damping;
use due::{Due, Pause};
use files::Files;
use http::Server;
pub use http::{Listen, status_schema};
use manager::Manager;
pub use options::{Confirm, OnExit, Options};
use probing::Probing;
use report::{Reporter, Trigger};
pub use source::Origin;
use source::{Loaded, Source};
use trial::{Told, Trial};
use wake::{Wake, Woken};

/// How long the kernel's news may gather before they are looked at: one command often makes several.
const SETTLE: Duration = Duration::from_millis(10);
/// How often a file is tried that can't be used while there is nothing else.
const UNTIL_GOOD: Duration = Duration::from_secs(5);
/// How often another run's lock is tried. Waiting for it would be waiting for nothing else: no signal, no sign of life.
const UNTIL_FREE: Duration = Duration::from_millis(100);
/// How often it's looked whether a change is still on trial.
const UNTIL_CONFIRMED: Duration = Duration::from_secs(1);
/// How long news of peers may gather before they are looked at: of many, some come at any time.
const UNTIL_HEARD: Duration = Duration::from_millis(50);
/// How soon the kernel is asked again after a conversation broke off.
const UNTIL_ANSWERED: Duration = Duration::from_secs(1);
/// Passes that find nothing to do take at most this part of the time: one tenth.
const IDLE_SHARE: u32 = 9;

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
    let files = Files::new(&options.path).map_err(Error::Wait)?;
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
        probing: Probing::new(options.netns.clone(), wake.bell().map_err(Error::Wait)?),
        board: server.as_ref().map(Server::board),
        due: Due::at_start(),
        locked_out: None,
        trial: None,
        is_recovered: false,
        is_wary: false,
    };
    loop {
        let now = Instant::now();
        daemon.publish(|board| board.turned = now);
        if daemon.due.file.is_some_and(|file| file.at <= now) {
            daemon.load(&mut kernel)?;
        }
        if daemon.due.hear.is_some_and(|at| at <= now) {
            daemon.hear_peers();
        }
        if daemon.due.trial.is_some_and(|at| at <= now) {
            daemon.look_at_trial(&kernel);
        }
        // The file may have made one that is due since.
        if let Some(trigger) = daemon.due.trigger(Instant::now()) {
            daemon.pass(&mut kernel, trigger)?;
        }
        if daemon.due.peers.is_some_and(|at| at <= now) {
            daemon.leave_peers();
        }
        let limit = daemon.timeout();
        let woken = wake.wait(&daemon.files, daemon.monitor.as_ref(), limit);
        match woken.map_err(Error::Wait)? {
            Woken { stop: true, .. } => return daemon.stop(&mut kernel),
            woken => daemon.note(woken, &kernel)?,
        }
    }
}

/// The change that somebody may still take back, in words. What can't be read is left to those who wrote it.
fn on_trial(kernel: &Kernel) -> Option<String> {
    match Unconfirmed::find(kernel.namespace()) {
        Ok(change) => change.map(|change| format!("a change of {} is on trial", change.topology)),
        Err(error) => Some(error.to_string()),
    }
}

fn in_words(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}

struct Daemon<'a, O> {
    options: &'a Options,
    source: Source<O>,
    files: Files,
    /// Since there is a topology, which tells whose routes to listen for.
    monitor: Option<Monitor>,
    presence: Option<(Owner, Presence)>,
    damping: Damping,
    reporter: Reporter,
    manager: Manager,
    probing: Probing,
    /// Where somebody asks over HTTP.
    board: Option<Shared>,
    due: Due,
    /// Since when another run has held the lock.
    locked_out: Option<Instant>,
    /// The new topology that isn't confirmed yet.
    trial: Option<Trial>,
    /// What a daemon before this one has left is seen to.
    is_recovered: bool,
    /// The host is as before a topology that was taken back, and none has been good since.
    is_wary: bool,
}

impl<O: Origin> Daemon<'_, O> {
    /// Reads the file again; a new topology is applied at once.
    fn load(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        if !self.is_recovered {
            self.is_recovered = self.recover(kernel);
            if !self.is_recovered {
                self.due.file = Some(Pause::until(Instant::now() + UNTIL_FREE, false));
                return Ok(());
            }
        }
        let pause = self.due.file.take();
        if pause.is_some_and(|pause| pause.blind) && !self.source.is_settled() {
            self.due.file = Some(Pause::until(Instant::now() + self.options.debounce, true));
            return Ok(());
        }
        // First, so that what changes while it's read is told.
        self.files.follow();
        let error_before = self.source.error().map(str::to_owned);
        match self.source.load(kernel) {
            Loaded::Same => {}
            Loaded::New => match self.listen(kernel) {
                Ok(()) => {
                    self.try_out();
                    self.take_up();
                }
                // Another daemon keeps what the file names now.
                Err(Error::Lock(error)) => {
                    let why = error.to_string();
                    if !self.source.withdraw(why.clone()) {
                        return Err(error.into());
                    }
                    if error_before != Some(why) {
                        self.tell_bad_file();
                    }
                }
                Err(error) => return Err(error),
            },
            Loaded::Bad => {
                self.is_wary |= self.source.is_rejected();
                self.tell_bad_file();
            }
        }
        let others_named = self.files.follow_also(self.source.lists());
        if let Some(why) = self.files.silent() {
            self.reporter.polls(why);
        }
        // What a node is may be known only once it has its address.
        let until_good = self.source.error().map(|_| UNTIL_GOOD);
        if let Some(every) = self.files.poll().into_iter().chain(until_good).min() {
            self.due.file = Some(Pause::until(Instant::now() + every, true));
        }
        if others_named {
            // What has changed before they were followed.
            self.due.file = Some(Pause::until(Instant::now(), true));
        }
        if self.source.good().is_none() || self.due.pass.is_none() {
            self.tell();
        }
        Ok(())
    }

    /// Another topology is in force, or none any more.
    fn take_up(&mut self) {
        self.damping.forget();
        let good = self.source.good();
        self.probing
            .load(good.map_or(&[], |good| good.targets.as_slice()));
        self.publish(|board| board.load(good));
        match good {
            Some(_) => self.due.wish(Trigger::File),
            None => self.probing.ask(&BTreeMap::new()),
        }
        self.heed_peers();
    }

    fn tell_bad_file(&self) {
        let error = self.source.error().unwrap_or_default();
        let in_force = self.source.good().is_some();
        let name = self.source.name();
        self.reporter.bad_file(&name, error, in_force);
    }

    /// Listens for the routes of the topology in force, in its owner's name.
    fn listen(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        let Some(good) = self.source.good() else {
            return Ok(());
        };
        let Terms {
            owner, protocol, ..
        } = &good.terms;
        if self
            .presence
            .as_ref()
            .is_none_or(|(known, _)| known != owner)
        {
            let presence = Presence::announce(kernel.namespace(), owner, &self.source.name())?;
            self.presence = Some((owner.clone(), presence));
        }
        let interest = Interest {
            protocol: *protocol,
            towards: lookups(&good.host),
        };
        let hears = |monitor: &Monitor| *monitor.interest() == interest;
        if !self.monitor.as_ref().is_some_and(hears) {
            let netns = self.options.netns.as_deref();
            self.monitor = Some(Monitor::open(netns, kernel, interest)?);
        }
        Ok(())
    }

    /// The conversation with the kernel broke off: begins another.
    fn reconnect(&mut self, kernel: &mut Kernel, error: kernel::Error) -> Result<(), Error> {
        let netns = self.options.netns.as_deref();
        let again = Kernel::open(netns)?;
        if again.namespace() != kernel.namespace() {
            return Err(error.into());
        }
        *kernel = again;
        self.monitor = None;
        self.listen(kernel)?;
        self.reporter.put_off(&error.to_string());
        let at = Instant::now() + UNTIL_ANSWERED;
        self.due.pass_at(at, Trigger::Retry);
        Ok(())
    }

    fn pass(&mut self, kernel: &mut Kernel, trigger: Trigger) -> Result<(), Error> {
        let start = Instant::now();
        self.due.pass = None;
        self.due.resync = start + self.options.resync;
        if self.source.good().is_none() {
            return Ok(());
        }
        let lock = match Lock::take(kernel.namespace(), Duration::ZERO) {
            Ok(lock) => lock,
            Err(error) => {
                self.locked_out(&error, trigger, start);
                return Ok(());
            }
        };
        self.locked_out = None;
        if !self.judge(kernel)? {
            return Ok(());
        }
        let is_on = self.trial.as_ref().is_some_and(Trial::is_on);
        if let Some(change) = (!is_on).then(|| on_trial(kernel)).flatten() {
            self.reporter.put_off(&change);
            self.publish(|board| board.put_off(trigger, start.elapsed()));
            self.due.pass_at(start + UNTIL_CONFIRMED, trigger);
            self.tell();
            return Ok(());
        }
        if matches!(trigger, Trigger::Kernel | Trigger::Overrun) {
            self.damping.hurry(start);
        }
        let kept = self.keep_to_topology(kernel, start);
        self.publish(|board| board.traffic = kernel.traffic());
        match kept {
            Ok(None) => {}
            Ok(Some(kept)) => {
                self.passed_on_trial(&kept);
                drop(lock);
                self.probing.ask(&kept.observed.devices);
                self.passed(&kept, trigger, start);
                if kept.rounds.is_empty() {
                    self.due.rested = Instant::now() + start.elapsed() * IDLE_SHARE;
                }
            }
            Err(reconcile::Error::Kernel(error)) => self.reconnect(kernel, error)?,
            Err(error @ reconcile::Error::NoWayBack(_)) => {
                self.reporter.put_off(&in_words(&error));
                self.due.pass_at(start + UNTIL_ANSWERED, trigger);
            }
        }
        self.tell();
        Ok(())
    }

    /// `None`: there is no topology in force.
    fn keep_to_topology(
        &mut self,
        kernel: &mut Kernel,
        now: Instant,
    ) -> Result<Option<Kept>, reconcile::Error> {
        let Some(good) = self.source.good() else {
            return Ok(None);
        };
        let namespace = kernel.namespace();
        let held = self.damping.held(now);
        let (monitor, trial) = (&mut self.monitor, &mut self.trial);
        let before_look = |_: &mut Kernel| {
            // What was told until now is in the snapshot that follows.
            if let Some(monitor) = monitor {
                monitor.drain()?;
            }
            Ok(())
        };
        let before_touch = |plan: &Plan, observed: &Observed| match trial {
            Some(trial) => trial.note(namespace, good, plan, observed),
            None => Ok(()),
        };
        let (host, terms) = (&good.host, &good.terms);
        reconcile::keep(kernel, host, terms, held, before_look, before_touch).map(Some)
    }

    /// Another run is at work: its lock is tried again soon, and said only when it takes long.
    fn locked_out(&mut self, error: &lock::Error, trigger: Trigger, now: Instant) {
        let since = *self.locked_out.get_or_insert(now);
        let is_brief =
            matches!(error, lock::Error::Held { .. }) && now - since < self.options.lock_timeout;
        if !is_brief {
            self.publish(|board| board.put_off(trigger, now - since));
            self.reporter.put_off(&match error {
                lock::Error::Held { path, .. } => lock::Error::Held {
                    path: path.clone(),
                    waited: self.options.lock_timeout,
                }
                .to_string(),
                error => error.to_string(),
            });
            self.tell();
        }
        self.due.pass_at(now + UNTIL_FREE, trigger);
    }

    fn passed(&mut self, kept: &Kept, trigger: Trigger, start: Instant) {
        self.reporter
            .pass(kept, trigger, start.elapsed(), &mut self.damping);
        self.publish(|board| board.pass(kept, trigger, start.elapsed(), &self.damping));
        // Also what was still held when the pass began and isn't any more.
        if let Some(turn) = self.damping.next_turn(start) {
            self.due.pass_at(turn, Trigger::Retry);
        }
    }

    fn note(&mut self, woken: Woken, kernel: &Kernel) -> Result<(), Error> {
        let now = Instant::now();
        if woken.file {
            self.due.file_changed(self.options.debounce);
        }
        if woken.reload {
            self.manager.reloading();
            self.forgive(kernel.namespace());
            self.due.file = Some(Pause::until(now, false));
            // Whoever asks may have mended what was refused, or ended a fight.
            self.damping.forget();
            self.due.pass_at(now, Trigger::Signal);
        }
        if woken.probes {
            self.due.hear.get_or_insert(now + UNTIL_HEARD);
        }
        if woken.kernel {
            let news = match &mut self.monitor {
                Some(monitor) => monitor.drain()?,
                None => News::Nothing,
            };
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

    /// How long there is nothing to do.
    fn timeout(&mut self) -> Duration {
        let now = Instant::now();
        let due = self.due.first();
        let sign = self.manager.next_sign_of_life(now);
        let next = sign.map_or(due, |sign| sign.min(due));
        next.saturating_duration_since(now)
    }

    /// Tells the service manager, and who asks, how it stands.
    fn tell(&mut self) {
        let told = self.told_of_trial();
        let words = self.reporter.words(
            &self.source.name(),
            self.source.error(),
            self.probing
                .words()
                .into_iter()
                .chain(told.as_ref().map(Told::words)),
        );
        self.manager.status(&words, self.reporter.is_ready());
        if let Some((_, presence)) = &mut self.presence {
            presence.tell(&words);
        }
        self.publish(|board| {
            board.ready = self.reporter.is_ready();
            board.error = self.source.error().map(str::to_owned);
            board.standing = words;
            board.on_trial = told;
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
        self.end_trial(kernel)?;
        tracing::info!(
            "stopping: {}",
            match self.options.on_exit {
                OnExit::Leave => "the network stays as it is",
                OnExit::Destroy => "what the topology owns is taken away",
            }
        );
        if let (OnExit::Destroy, Some(good)) = (self.options.on_exit, self.source.good()) {
            let _lock = Lock::take(kernel.namespace(), self.options.lock_timeout)?;
            let goal = Goal::Nothing(Some(&good.host));
            let pass = reconcile::apply(kernel, goal, &good.terms, OnRefusal::GoOn, &mut ())?;
            self.reporter.carried_out(&pass.rounds);
        }
        Ok(())
    }
}

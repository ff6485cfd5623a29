//! The thread that probes: each target in its turn, whatever becomes of the others.
//!
//! There is one only while there is something to probe, and it has sockets only while a probe is under way.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::schedule::{Schedule, Task};
use crate::kernel::{self, inside_namespace};
use crate::probe::icmp::Engine;
use crate::probe::{Error, Outcome};
use crate::watch::wake::sleep;

/// A list of targets. Numbers are of one generation.
struct List {
    generation: u64,
    tasks: Vec<Task>,
}

/// What the thread has found out.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) generation: u64,
    /// By the target's number; or why nobody can be probed.
    pub(super) outcomes: Result<Vec<(usize, Outcome)>, String>,
}

/// The thread, as the daemon sees it.
pub(super) struct Prober {
    netns: Option<String>,
    /// Wakes the daemon.
    bell: UnixStream,
    running: Option<Running>,
}

struct Running {
    lists: Sender<List>,
    /// Wakes the thread; it ends when this is closed.
    nudge: UnixStream,
    findings: Receiver<Finding>,
    told: (u64, Vec<Task>),
    thread: JoinHandle<()>,
}

impl Prober {
    pub(super) fn new(netns: Option<String>, bell: UnixStream) -> Self {
        Self {
            netns,
            bell,
            running: None,
        }
    }

    /// Probes these from now on, and nobody else.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn probe(&mut self, generation: u64, tasks: Vec<Task>) -> std::io::Result<()> {
        if tasks.is_empty() {
            self.running = None;
            return Ok(());
        }
        // One that couldn't enter the namespace has said so; it may be there now.
        self.running.take_if(|running| running.thread.is_finished());
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                let started = self.start()?;
                self.running.insert(started)
            }
        };
        let list = (generation, tasks);
        if running.told != list {
            running.told.clone_from(&list);
            let (generation, tasks) = list;
            // Nobody hears it where the thread has ended since: the next time there's another.
            let _ = running.lists.send(List { generation, tasks });
            ring(&running.nudge);
        }
        Ok(())
    }

    /// What was found since this was last asked.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let running = self.running.iter();
        running.flat_map(|r| r.findings.try_iter()).collect()
    }

    fn start(&self) -> std::io::Result<Running> {
        let (lists, heard) = channel();
        let (report, findings) = channel();
        let (nudge, nudged) = UnixStream::pair()?;
        nudge.set_nonblocking(true)?;
        nudged.set_nonblocking(true)?;
        let bell = self.bell.try_clone()?;
        let netns = self.netns.clone();
        let mut line = Line {
            lists: heard,
            nudged,
            report,
            bell,
            generation: 0,
        };
        let thread = std::thread::Builder::new()
            .name("probes".into())
            .spawn(move || {
                let ended = inside_namespace(netns.as_deref(), || Thread::new(&mut line).run());
                if let Err(error) = ended {
                    line.give_up(&error);
                }
            })?;
        Ok(Running {
            lists,
            nudge,
            findings,
            told: (0, Vec::new()),
            thread,
        })
    }
}

/// One byte is as good as many.
fn ring(mut bell: &UnixStream) {
    let _ = bell.write(&[0]);
}

/// The thread's end of what it has in common with the daemon.
struct Line {
    lists: Receiver<List>,
    nudged: UnixStream,
    report: Sender<Finding>,
    bell: UnixStream,
    generation: u64,
}

impl Line {
    fn tell(&self, outcomes: Result<Vec<(usize, Outcome)>, String>) {
        let generation = self.generation;
        let _ = self.report.send(Finding {
            generation,
            outcomes,
        });
        ring(&self.bell);
    }

    /// Answers the one list that it hears.
    fn give_up(&mut self, why: &kernel::Error) {
        if let Ok(List { generation, .. }) = self.lists.recv() {
            self.generation = generation;
            self.tell(Err(why.to_string()));
        }
    }
}

struct Thread<'a> {
    line: &'a mut Line,
    schedule: Schedule,
    /// While probes are under way.
    engine: Option<Engine>,
}

impl<'a> Thread<'a> {
    fn new(line: &'a mut Line) -> Self {
        Self {
            line,
            schedule: Schedule::default(),
            engine: None,
        }
    }

    fn run(&mut self) {
        while self.hear() {
            let outcomes = self.turn().map_err(|error| {
                self.engine = None;
                self.schedule.failed();
                in_words(&error)
            });
            if !matches!(&outcomes, Ok(outcomes) if outcomes.is_empty()) {
                self.line.tell(outcomes);
            }
        }
    }

    /// Takes the latest list. False: there will be no more.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; 64];
        while self
            .line
            .nudged
            .read(&mut buffer)
            .is_ok_and(|bytes| bytes > 0)
        {}
        loop {
            match self.line.lists.try_recv() {
                Ok(List { generation, tasks }) => {
                    let is_other = self.line.generation != generation;
                    if is_other {
                        // The numbers of what is under way mean others now.
                        self.engine = None;
                        self.line.generation = generation;
                    }
                    self.schedule.renew(&tasks, is_other, Instant::now());
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Starts what is due, and waits until something is known, due, or told.
    fn turn(&mut self) -> Result<Vec<(usize, Outcome)>, Error> {
        let due = self.schedule.take(Instant::now());
        let next = self.schedule.next();
        if due.is_empty() && self.engine.is_none() {
            sleep(&[self.line.nudged.as_fd()], next).map_err(Error::Socket)?;
            return Ok(Vec::new());
        }
        let engine = match &mut self.engine {
            Some(engine) => engine,
            None => self.engine.insert(Engine::new()?),
        };
        for (number, order) in due {
            engine.add(number, order);
        }
        let outcomes = engine.turn(Some(self.line.nudged.as_fd()), next)?;
        for (number, outcome) in &outcomes {
            self.schedule.done(*number, outcome);
        }
        if engine.is_idle() {
            self.engine = None;
        }
        Ok(outcomes)
    }
}

fn in_words(error: &Error) -> String {
    match error {
        Error::Privilege => error.to_string(),
        Error::Socket(source) => format!("{error}: {source}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::Order;

    #[test]
    fn whoever_cannot_enter_the_namespace_says_so() {
        let (bell, mut rung) = UnixStream::pair().unwrap();
        let mut prober = Prober::new(Some("no-such-namespace".into()), bell);
        let order = Order {
            device: None,
            to: [192, 0, 2, 1].into(),
            count: 1,
            timeout: Duration::from_secs(1),
            mtu: None,
            search: false,
        };
        let task = Task {
            number: 0,
            order,
            interval: Duration::from_secs(1),
        };
        for generation in [1, 2] {
            prober.probe(generation, vec![task]).unwrap();
            rung.read_exact(&mut [0]).unwrap();
            let [finding] = &prober.findings()[..] else {
                panic!("expected one finding");
            };
            assert_eq!(finding.generation, generation);
            let why = finding.outcomes.as_ref().unwrap_err();
            assert!(why.contains("no-such-namespace"), "{why}");
            while !prober.running.as_ref().unwrap().thread.is_finished() {
                std::thread::yield_now();
            }
        }
    }
}

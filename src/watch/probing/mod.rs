//! Probes, kept up: the peers of the topology in force, and the thread that asks them.

mod peer;
mod peers;
mod prober;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use crate::probe::{Followed, Target};
use crate::state::{Device, InterfaceName};
use crate::topology::Silent;
use peer::News;
use peers::Peers;
use prober::Prober;

/// The peers, and who asks them.
pub(super) struct Probing {
    peers: Peers,
    prober: Prober,
}

impl Probing {
    /// Asks in a network namespace, and rings the bell when something was heard.
    pub(super) fn new(netns: Option<String>, bell: UnixStream) -> Self {
        Self {
            peers: Peers::default(),
            prober: Prober::new(netns, bell),
        }
    }

    /// Another topology is in force.
    pub(super) fn load(&mut self, targets: &[Target]) {
        self.peers.load(targets, SystemTime::now());
    }

    /// The tunnels are there, and these are the devices: asks from now on.
    pub(super) fn ask(&mut self, devices: &BTreeMap<InterfaceName, Device>) {
        let tasks = self.peers.tasks(devices);
        if let Err(error) = self.prober.probe(self.peers.generation(), tasks) {
            let why = format!("can't start a thread: {error}");
            tell(self.peers.unable(why, SystemTime::now()));
        }
    }

    /// Takes what was found, and logs what is new.
    pub(super) fn hear(&mut self) {
        let now = SystemTime::now();
        for finding in self.prober.findings() {
            if finding.generation == self.peers.generation() {
                tell(match finding.outcomes {
                    Ok(outcomes) => self.peers.heard(outcomes, now),
                    Err(why) => self.peers.unable(why, now),
                });
            }
        }
    }

    /// The addresses that answer.
    pub(super) fn answering(&self) -> BTreeSet<Ipv4Addr> {
        self.peers.answering()
    }

    /// Waits for an answer from each of these that is still probed. They are asked often, from [`Self::ask`] on.
    pub(super) fn await_answers(&mut self, addresses: &BTreeSet<Ipv4Addr>) {
        self.peers.await_answers(addresses);
    }

    /// Nobody's answer is waited for any more.
    pub(super) fn await_nobody(&mut self) {
        self.peers.await_nobody();
    }

    /// Whose answer is still waited for, in words.
    pub(super) fn awaited(&self) -> Vec<String> {
        self.peers.awaited()
    }

    /// Whose routes are to be left out.
    pub(super) fn silent(&self) -> Vec<Silent> {
        self.peers.silent()
    }

    /// What there is to say of the peers, in a few words.
    pub(super) fn words(&self) -> Option<String> {
        self.peers.words()
    }

    /// How each peer stands.
    pub(super) fn shown(&self) -> impl ExactSizeIterator<Item = &Followed> {
        self.peers.shown()
    }

    /// Brings a copy of that up to date.
    pub(super) fn show(&mut self, copy: &mut Vec<Followed>) {
        self.peers.show(copy);
    }
}

fn tell(news: Vec<News>) {
    for news in news {
        match news {
            News::Alarm(text) => tracing::warn!("{text}"),
            News::Relief(text) => tracing::info!("{text}"),
        }
    }
}

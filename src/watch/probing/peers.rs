//! The peers in the topology in force, and whose routes are taken out. The clock is the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use super::peer::{News, Peer};
use super::schedule::Task;
use crate::probe::{Followed, Outcome, State, Target};
use crate::state::{Device, InterfaceName};
use crate::topology::{Silent, Way, Withdraw};

/// From one probe of a peer whose answer is waited for to the next.
const HURRIED: Duration = Duration::from_secs(1);

/// The peers that the daemon probes.
#[derive(Default)]
pub(super) struct Peers {
    /// Of which list a peer's number is.
    generation: u64,
    list: Vec<Peer>,
    /// Every peer whose routes may be taken out is dead.
    all_dead: bool,
    /// Why nobody can be probed.
    unable: Option<String>,
    /// The numbers of those that are shown otherwise than before.
    changed: BTreeSet<usize>,
    /// The numbers of those whose answer is waited for.
    awaited: BTreeSet<usize>,
}

impl Peers {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Another topology. A peer that was in the one before stays as it is.
    pub(super) fn load(&mut self, targets: &[Target], now: SystemTime) {
        self.generation += 1;
        let before = std::mem::take(&mut self.list).into_iter();
        let mut known: HashMap<(Way, Ipv4Addr), Peer> = before
            .filter_map(|peer| Some((identity(&peer.target)?, peer)))
            .collect();
        let watched = targets.iter().filter(|target| target.watched);
        self.list = watched
            .map(|target| {
                let before = identity(target).and_then(|identity| known.remove(&identity));
                Peer::new(target.clone(), before, now)
            })
            .collect();
        self.changed = (0..self.list.len()).collect();
        self.awaited.clear();
        self.withdraw();
    }

    /// The addresses that the last probe was answered from.
    pub(super) fn answering(&self) -> BTreeSet<Ipv4Addr> {
        let reachable = self.list.iter();
        let reachable = reachable.filter(|peer| peer.shown.row.state == State::Reachable);
        reachable.filter_map(|peer| peer.target.address).collect()
    }

    /// Waits for an answer from each of these addresses that is still probed, to probes that are begun from now on.
    pub(super) fn await_answers(&mut self, addresses: &BTreeSet<Ipv4Addr>) {
        // An answer to an earlier probe is one of an earlier list.
        self.generation += 1;
        let numbered = self.list.iter().enumerate();
        self.awaited = numbered
            .filter(|(_, peer)| {
                let identity = identity(&peer.target);
                identity.is_some_and(|(_, address)| addresses.contains(&address))
            })
            .map(|(number, _)| number)
            .collect();
    }

    /// Nobody's answer is waited for any more.
    pub(super) fn await_nobody(&mut self) {
        self.awaited.clear();
    }

    /// Whose answer is still waited for, in words.
    pub(super) fn awaited(&self) -> Vec<String> {
        let awaited = self.awaited.iter();
        let peers = awaited.filter_map(|number| self.list.get(*number));
        peers.map(|peer| peer.target.to_string()).collect()
    }

    /// What to probe, through tunnels with these MTUs.
    pub(super) fn tasks(&mut self, devices: &BTreeMap<InterfaceName, Device>) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (number, peer) in self.list.iter_mut().enumerate() {
            let mtu = devices.get(&peer.target.way.tunnel).map(|d| d.mtu);
            if peer.shown.row.tunnel_mtu != mtu {
                peer.shown.row.tunnel_mtu = mtu;
                self.changed.insert(number);
            }
            let interval = match self.awaited.contains(&number) {
                true => peer.target.terms.interval.min(HURRIED),
                false => peer.target.terms.interval,
            };
            tasks.extend(peer.target.order(mtu).map(|order| Task {
                number,
                order,
                interval,
            }));
        }
        tasks
    }

    /// What became of some of them.
    pub(super) fn heard(&mut self, outcomes: Vec<(usize, Outcome)>, now: SystemTime) -> Vec<News> {
        let mut news = Vec::new();
        if self.unable.take().is_some() {
            news.push(News::Relief("peers are probed again".into()));
        }
        for (number, outcome) in outcomes {
            if let Some(peer) = self.list.get_mut(number) {
                if !outcome.times.is_empty() {
                    self.awaited.remove(&number);
                }
                news.extend(peer.heard(outcome, now));
                self.changed.insert(number);
            }
        }
        news.extend(self.withdraw());
        news
    }

    /// Nobody can be probed, and nothing is known of anybody.
    pub(super) fn unable(&mut self, why: String, now: SystemTime) -> Vec<News> {
        for (number, peer) in self.list.iter_mut().enumerate() {
            if identity(&peer.target).is_some() && peer.unable(&why, now) {
                self.changed.insert(number);
            }
        }
        self.withdraw();
        if self.unable.as_ref() == Some(&why) {
            return Vec::new();
        }
        let alarm = format!("no peer is probed: {why}");
        self.unable = Some(why);
        vec![News::Alarm(alarm)]
    }

    /// Dead peers' routes are taken out, but for the last ones': where everybody seems dead, it's likelier that this host
    /// is cut off.
    fn withdraw(&mut self) -> Option<News> {
        let mut withdrawable = self
            .list
            .iter()
            .filter(|peer| peer.target.terms.withdraw != Withdraw::No)
            .peekable();
        let all_dead = withdrawable.peek().is_some() && withdrawable.all(|peer| peer.dead);
        let mut kept = 0;
        for (number, peer) in self.list.iter_mut().enumerate() {
            let before = peer.shown.withdrawn;
            let withdrawn = peer.dead
                && match peer.target.terms.withdraw {
                    Withdraw::No => false,
                    Withdraw::Yes => before || !all_dead,
                    Withdraw::All => true,
                };
            kept +=
                usize::from(peer.dead && !withdrawn && peer.target.terms.withdraw == Withdraw::Yes);
            if before != withdrawn {
                peer.shown.withdrawn = withdrawn;
                self.changed.insert(number);
            }
        }
        let was = std::mem::replace(&mut self.all_dead, kept > 0);
        (kept > 0 && !was).then(|| {
            News::Alarm(format!(
                "no peer answers any more: no more routes are taken out, as the fault is likelier on this host's side; \
                 the routes to {kept} of them stay (`withdraw_routes: all` takes all out)"
            ))
        })
    }

    /// Those whose routes are to be left out.
    pub(super) fn silent(&self) -> Vec<Silent> {
        let withdrawn = self.list.iter().filter(|peer| peer.shown.withdrawn);
        withdrawn.filter_map(|peer| peer.target.silent()).collect()
    }

    /// What there is to say of them, in a few words.
    pub(super) fn words(&self) -> Option<String> {
        if self.unable.is_some() {
            return Some("peers can't be probed".into());
        }
        let silent = self.list.iter();
        let silent = silent.filter(|peer| peer.shown.row.state == State::Unreachable);
        match silent.count() {
            0 => None,
            count => Some(format!("{count} of {} peers unreachable", self.list.len())),
        }
    }

    /// All of them.
    pub(super) fn shown(&self) -> impl ExactSizeIterator<Item = &Followed> {
        self.list.iter().map(|peer| &peer.shown)
    }

    /// Brings a copy of all of them up to date.
    pub(super) fn show(&mut self, copy: &mut Vec<Followed>) {
        let changed = std::mem::take(&mut self.changed);
        if copy.len() != self.list.len() {
            *copy = self.shown().cloned().collect();
            return;
        }
        for number in changed {
            copy[number].clone_from(&self.list[number].shown);
        }
    }
}

/// What is the same peer in another topology; `None`: nobody who can be probed.
fn identity(target: &Target) -> Option<(Way, Ipv4Addr)> {
    target
        .silent()
        .map(|Silent { way, address }| (way, address))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::{Mtu, Terms};

    fn target(number: u8, withdraw: Withdraw) -> Target {
        Target {
            way: Way {
                tunnel: format!("tun{number}").parse().unwrap(),
                via: None,
                direct: false,
            },
            peer: Some(format!("n{number}")),
            address: Some(Ipv4Addr::new(10, 0, 0, number)),
            down: false,
            watched: true,
            terms: Terms {
                interval: Duration::from_secs(10),
                timeout: Duration::from_secs(1),
                count: 3,
                withdraw,
            },
        }
    }

    fn peers(withdraw: &[Withdraw]) -> Peers {
        let targets: Vec<Target> = (0..).zip(withdraw).map(|(n, w)| target(n, *w)).collect();
        let mut peers = Peers::default();
        peers.load(&targets, SystemTime::UNIX_EPOCH);
        peers
    }

    fn outcome(answers: bool, path: Option<u32>) -> Outcome {
        Outcome {
            sent: 3,
            times: vec![Duration::from_millis(1); if answers { 3 } else { 0 }],
            mtu: path.map(|path| Mtu {
                path,
                tunnel: 1480,
                complaint: None,
            }),
            complaint: None,
        }
    }

    /// What is told when these answer, or don't.
    fn hear(peers: &mut Peers, outcomes: &[(usize, bool)]) -> Vec<String> {
        let outcomes = outcomes.iter();
        let outcomes = outcomes.map(|(number, answers)| (*number, outcome(*answers, None)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        words(peers.heard(outcomes.collect(), now))
    }

    fn words(news: Vec<News>) -> Vec<String> {
        let words = news.into_iter().map(|news| match news {
            News::Alarm(text) => format!("! {text}"),
            News::Relief(text) => text,
        });
        words.collect()
    }

    /// The numbers of those whose routes are taken out.
    fn withdrawn(peers: &Peers) -> Vec<u8> {
        let silent = peers.silent();
        silent.iter().map(|one| one.address.octets()[3]).collect()
    }

    #[test]
    fn a_state_is_told_once() {
        let mut peers = peers(&[Withdraw::No]);
        assert_eq!(peers.words(), None);
        assert!(hear(&mut peers, &[(0, true)]).is_empty());
        assert_eq!(
            hear(&mut peers, &[(0, false)]),
            ["! tun0 to n0 (10.0.0.0): no answer"]
        );
        assert!(hear(&mut peers, &[(0, false)]).is_empty());
        assert_eq!(peers.words().as_deref(), Some("1 of 1 peers unreachable"));
        assert_eq!(
            hear(&mut peers, &[(0, true)]),
            ["tun0 to n0 (10.0.0.0): answers again"]
        );
        let shown = peers.shown().next().unwrap();
        assert_eq!((shown.sent_total, shown.received_total), (12, 6));
        assert!(withdrawn(&peers).is_empty());
    }

    #[test]
    fn the_last_ones_routes_stay() {
        use Withdraw::{All, No, Yes};
        /// Who is asked, and whether there's an answer; who is out then.
        type Step<'a> = (&'a [(usize, bool)], &'a [u8]);
        let cases: [(&[Withdraw], &[Step]); 6] = [
            (&[Yes], &[(&[(0, false)], &[])]),
            (&[All], &[(&[(0, false)], &[0]), (&[(0, true)], &[])]),
            (&[Yes, No], &[(&[(0, false), (1, true)], &[])]),
            // One after the other, and back.
            (
                &[Yes, Yes],
                &[
                    (&[(0, false)], &[0]),
                    (&[(1, false)], &[0]),
                    (&[(0, true)], &[1]),
                    (&[(1, true)], &[]),
                ],
            ),
            // At once.
            (
                &[Yes, Yes, All],
                &[
                    (&[(0, false), (1, false), (2, false)], &[2]),
                    (&[(2, true)], &[0, 1]),
                ],
            ),
            (&[All, All], &[(&[(0, false), (1, false)], &[0, 1])]),
        ];
        for (withdraw, steps) in cases {
            let mut peers = peers(withdraw);
            for (outcomes, expected) in steps {
                hear(&mut peers, outcomes);
                assert_eq!(withdrawn(&peers), *expected, "{withdraw:?} {outcomes:?}");
            }
        }
        let mut peers = peers(&[Yes, Yes]);
        let told = hear(&mut peers, &[(0, false), (1, false)]);
        assert!(
            told[2].starts_with("! no peer answers any more"),
            "{told:?}"
        );
        assert_eq!(hear(&mut peers, &[(0, false)]), Vec::<String>::new());
    }

    /// What can't be sent says nothing of the peer.
    #[test]
    fn only_silence_is_death() {
        let mut peers = peers(&[Withdraw::All]);
        let outcome = Outcome {
            complaint: Some("there is no device tun0".into()),
            ..Outcome::default()
        };
        let told = words(peers.heard(vec![(0, outcome)], SystemTime::UNIX_EPOCH));
        assert_eq!(
            told,
            ["! tun0 to n0 (10.0.0.0): no answer: there is no device tun0"]
        );
        assert!(withdrawn(&peers).is_empty());
        hear(&mut peers, &[(0, false)]);
        assert_eq!(withdrawn(&peers), [0]);
        let told = words(peers.unable("no right".into(), SystemTime::UNIX_EPOCH));
        assert_eq!(told, ["! no peer is probed: no right"]);
        assert!(withdrawn(&peers).is_empty());
        assert!(
            peers
                .unable("no right".into(), SystemTime::UNIX_EPOCH)
                .is_empty()
        );
        assert_eq!(peers.shown().next().unwrap().row.state, State::Unknown);
        assert_eq!(hear(&mut peers, &[(0, true)]), ["peers are probed again"]);
    }

    /// Who was dead stays so in another topology, under the terms of that.
    #[test]
    fn another_topology() {
        let mut peers = peers(&[Withdraw::Yes, Withdraw::Yes]);
        let mut copy = Vec::new();
        hear(&mut peers, &[(0, true), (1, false)]);
        let more: Vec<Target> = (1..4).map(|n| target(n, Withdraw::Yes)).collect();
        peers.load(&more, SystemTime::UNIX_EPOCH);
        assert_eq!(withdrawn(&peers), [1]);
        peers.show(&mut copy);
        let states: Vec<State> = copy.iter().map(|one| one.row.state).collect();
        assert_eq!(states, [State::Unreachable, State::Unknown, State::Unknown]);
        hear(&mut peers, &[(2, true)]);
        peers.show(&mut copy);
        assert_eq!(copy[2].row.state, State::Reachable);
        peers.load(&[target(1, Withdraw::No)], SystemTime::UNIX_EPOCH);
        assert!(withdrawn(&peers).is_empty());
        assert_eq!(peers.words().as_deref(), Some("1 of 1 peers unreachable"));
    }

    /// Only those that answered before, that are still there, and that answer to a probe which is begun since.
    #[test]
    fn answers_are_waited_for() {
        let mut peers = peers(&[Withdraw::No; 3]);
        hear(&mut peers, &[(0, true), (1, true), (2, false)]);
        let answering = peers.answering();
        assert_eq!(answering, [0, 1].map(|n| Ipv4Addr::new(10, 0, 0, n)).into());
        let mut targets: Vec<Target> = (0..4).map(|n| target(n, Withdraw::No)).collect();
        targets.remove(1);
        peers.load(&targets, SystemTime::UNIX_EPOCH);
        let generation = peers.generation();
        peers.await_answers(&answering);
        assert_ne!(peers.generation(), generation);
        assert_eq!(peers.awaited(), ["tun0 to n0 (10.0.0.0)"]);
        let intervals: Vec<u64> = peers
            .tasks(&BTreeMap::new())
            .iter()
            .map(|task| task.interval.as_secs())
            .collect();
        assert_eq!(intervals, [1, 10, 10]);
        hear(&mut peers, &[(0, false), (1, true)]);
        assert_eq!(peers.awaited().len(), 1);
        hear(&mut peers, &[(0, true)]);
        assert!(peers.awaited().is_empty());
        // Who is kept down can't answer.
        targets[0].down = true;
        peers.load(&targets, SystemTime::UNIX_EPOCH);
        peers.await_answers(&answering);
        assert!(peers.awaited().is_empty());
    }

    #[test]
    fn a_path_is_remembered_between_searches() {
        let mut peers = peers(&[Withdraw::No]);
        let devices = |mtu| {
            let device = Device {
                index: 7,
                kind: "ipip".into(),
                mtu,
                up: true,
                alias: "".into(),
                group: 0,
                counters: None,
            };
            BTreeMap::from([("tun0".parse().unwrap(), device)])
        };
        let hear = |peers: &mut Peers, path| {
            words(peers.heard(vec![(0, outcome(true, path))], SystemTime::UNIX_EPOCH))
        };
        let path = |peers: &Peers| peers.shown().next().unwrap().row.path_mtu;
        assert_eq!(peers.tasks(&devices(1480)).len(), 1);
        let told = hear(&mut peers, Some(1300));
        assert!(told[0].contains("MTU black hole"), "{told:?}");
        assert!(hear(&mut peers, None).is_empty());
        assert_eq!(path(&peers), Some(1300));
        let told = hear(&mut peers, Some(1480));
        assert_eq!(
            told,
            ["tun0 to n0 (10.0.0.0): packets of the tunnel's MTU pass again"]
        );
        // It was found for another tunnel, so to say.
        peers.tasks(&devices(1400));
        hear(&mut peers, None);
        assert_eq!(path(&peers), None);
    }
}

//! One target's probe from its first echo to its result: what to send when, and what an answer or its absence means.
//! The clock and the sockets are the caller's.

use std::time::{Duration, Instant};

use super::search::Search;
use super::{Mtu, Order, Outcome};

/// The smallest packet that is of interest: what every link carries (RFC 791), and the least MTU of a device.
pub(super) const LEAST: u32 = 68;
/// Bytes of the packet that the echoes measure time with: ping's own size.
const ECHO: u32 = 84;
/// Between two echoes of one probe.
const SPACING: Duration = Duration::from_millis(20);
/// How often a size is tried before it counts as lost: any path loses a packet now and then.
const TRIES: u32 = 2;
/// The longest that was waited for an echo, so many times over, is waited in the search, where silence is an answer.
const PATIENCE: u32 = 8;
/// The least that is waited in the search: a busy host answers late.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);

/// What a session wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send an echo of `size` bytes, the IP header among them.
    Send { number: u16, size: u32 },
    /// Nothing before then, unless an answer comes.
    Wait(Instant),
    /// The outcome is known.
    Done,
}

/// Why a packet won't be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// In words.
    pub text: String,
    /// The size that would do, where it was too large.
    pub fits: Option<u32>,
    /// Whether it was only too large, so that the path itself may be well.
    pub too_large: bool,
}

/// A probe of one target.
#[derive(Debug)]
pub(super) struct Session {
    count: u32,
    timeout: Duration,
    /// The tunnel's.
    mtu: Option<u32>,
    /// Whether the path's MTU is wanted.
    search: bool,
    phase: Phase,
    /// Packets that are not answered yet.
    flying: Vec<Flight>,
    sent: u16,
    /// Not before then.
    next: Option<Instant>,
    times: Vec<Duration>,
    complaint: Option<String>,
    too_large: Option<String>,
}

#[derive(Debug)]
enum Phase {
    Echoes,
    Searching { search: Search, tries: u32 },
    Done { path: Option<u32> },
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    number: u16,
    since: Instant,
}

impl Session {
    pub(super) fn new(order: &Order) -> Self {
        Self {
            count: order.count,
            timeout: order.timeout,
            mtu: order.mtu,
            search: order.search,
            phase: Phase::Echoes,
            flying: Vec::new(),
            sent: 0,
            next: None,
            times: Vec::new(),
            complaint: None,
            too_large: None,
        }
    }

    /// What to do at `now`. A [`Step::Send`] is to be followed by [`Session::sent`], [`Session::refused`] or
    /// [`Session::later`].
    pub(super) fn step(&mut self, now: Instant) -> Step {
        loop {
            self.forget(now);
            match &mut self.phase {
                Phase::Done { .. } => return Step::Done,
                _ if self.next.is_some_and(|next| next > now) => {
                    return Step::Wait(self.next.unwrap_or(now));
                }
                Phase::Echoes if u32::from(self.sent) < self.count => {
                    return Step::Send {
                        number: self.sent,
                        size: self.mtu.map_or(ECHO, |mtu| mtu.clamp(LEAST, ECHO)),
                    };
                }
                Phase::Echoes | Phase::Searching { .. } if !self.flying.is_empty() => {
                    return Step::Wait(self.deadline(now));
                }
                Phase::Echoes => self.phase = self.after_echoes(),
                Phase::Searching { search, tries } => match search.next() {
                    None => {
                        let path = Some(search.largest());
                        self.phase = Phase::Done { path };
                    }
                    Some(_) if *tries >= TRIES => {
                        search.answer(false);
                        *tries = 0;
                    }
                    Some(size) => {
                        return Step::Send {
                            number: self.sent,
                            size,
                        };
                    }
                },
            }
        }
    }

    fn after_echoes(&self) -> Phase {
        match self.mtu {
            Some(mtu) if self.search && !self.times.is_empty() => Phase::Searching {
                search: Search::new(LEAST.min(mtu), mtu),
                tries: 0,
            },
            Some(_) | None => Phase::Done { path: None },
        }
    }

    /// The packet that [`Step::Send`] asked for is on its way.
    pub(super) fn sent(&mut self, now: Instant) {
        self.flying.push(Flight {
            number: self.sent,
            since: now,
        });
        self.count_sent(now);
    }

    fn count_sent(&mut self, now: Instant) {
        self.sent = self.sent.wrapping_add(1);
        match &mut self.phase {
            Phase::Searching { tries, .. } => *tries += 1,
            Phase::Echoes if u32::from(self.sent) < self.count => self.next = Some(now + SPACING),
            Phase::Echoes | Phase::Done { .. } => {}
        }
    }

    /// The packet that [`Step::Send`] asked for can't be sent, and never will be.
    pub(super) fn refused(&mut self, now: Instant, complaint: Complaint) {
        self.sent(now);
        self.complained(self.sent.wrapping_sub(1), complaint);
    }

    /// The packet that [`Step::Send`] asked for has to wait.
    pub(super) fn later(&mut self, then: Instant) {
        self.next = Some(then);
    }

    /// An echo came back.
    pub(super) fn answered(&mut self, number: u16, now: Instant) {
        let Some(flight) = self.landed(number) else {
            return;
        };
        match &mut self.phase {
            Phase::Echoes => self.times.push(now.duration_since(flight.since)),
            Phase::Searching { search, tries } => {
                search.answer(true);
                *tries = 0;
            }
            Phase::Done { .. } => {}
        }
    }

    /// Somebody says that a packet of ours won't arrive.
    pub(super) fn complained(&mut self, number: u16, complaint: Complaint) {
        if self.landed(number).is_none() {
            return;
        }
        match &mut self.phase {
            Phase::Searching { search, tries } if complaint.too_large => {
                search.answer(false);
                *tries = 0;
                if let Some(size) = complaint.fits {
                    search.hint(size);
                }
                // The first to say so is where it is narrow; then the kernel here has learnt it.
                self.too_large.get_or_insert(complaint.text);
            }
            // As good as silence: another try follows.
            Phase::Searching { .. } => {}
            Phase::Echoes | Phase::Done { .. } => self.complaint = Some(complaint.text),
        }
    }

    fn landed(&mut self, number: u16) -> Option<Flight> {
        let place = self.flying.iter().position(|f| f.number == number)?;
        Some(self.flying.swap_remove(place))
    }

    fn forget(&mut self, now: Instant) {
        let patience = self.patience();
        self.flying
            .retain(|flight| now.duration_since(flight.since) < patience);
    }

    fn deadline(&self, now: Instant) -> Instant {
        let last = self.flying.iter().map(|flight| flight.since).min();
        last.unwrap_or(now) + self.patience()
    }

    fn patience(&self) -> Duration {
        let longest = self.times.iter().max();
        match (&self.phase, longest) {
            (Phase::Searching { .. }, Some(longest)) => {
                (*longest * PATIENCE).clamp(LEAST_PATIENCE.min(self.timeout), self.timeout)
            }
            _ => self.timeout,
        }
    }

    /// What became of it.
    pub(super) fn outcome(self) -> Outcome {
        let path = match self.phase {
            Phase::Done { path } => path,
            Phase::Echoes | Phase::Searching { .. } => None,
        };
        Outcome {
            sent: self.count,
            times: self.times,
            mtu: self.mtu.zip(path).map(|(tunnel, path)| Mtu {
                path,
                tunnel,
                complaint: self.too_large.filter(|_| path < tunnel),
            }),
            complaint: self.complaint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path whose answers take `delay`; `None`: no answer. The outcome, and how long it took.
    fn probe(
        mut session: Session,
        mut path: impl FnMut(u32) -> Result<Option<Duration>, Complaint>,
    ) -> (Outcome, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut answers: Vec<(Instant, u16)> = Vec::new();
        for _ in 0..10_000 {
            answers.sort();
            match session.step(now) {
                Step::Done => return (session.outcome(), now.duration_since(start)),
                Step::Send { number, size } => match path(size) {
                    Ok(delay) => {
                        session.sent(now);
                        answers.extend(delay.map(|delay| (now + delay, number)));
                    }
                    Err(complaint) => session.refused(now, complaint),
                },
                Step::Wait(until) => match answers.first().copied() {
                    Some((when, number)) if when <= until => {
                        answers.remove(0);
                        now = when;
                        session.answered(number, now);
                    }
                    Some(_) | None => now = until,
                },
            }
        }
        panic!("it never ends: {session:?}");
    }

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn session(mtu: Option<u32>) -> Session {
        Session::new(&Order {
            device: None,
            to: std::net::Ipv4Addr::LOCALHOST,
            count: 3,
            timeout: SECOND,
            mtu,
            search: true,
        })
    }

    #[test]
    fn a_path_that_carries_everything() {
        let (outcome, took) = probe(session(Some(1480)), |_| Ok(Some(MILLISECOND)));
        assert_eq!(outcome.times, [MILLISECOND; 3]);
        let mtu = outcome.mtu.unwrap();
        assert_eq!((mtu.path, mtu.tunnel, mtu.complaint), (1480, 1480, None));
        assert!(took < SECOND / 10, "{took:?}");
    }

    #[test]
    fn a_path_that_carries_nothing() {
        let (outcome, took) = probe(session(Some(1480)), |_| Ok(None));
        assert!(outcome.times.is_empty());
        assert!(outcome.mtu.is_none());
        assert_eq!(outcome.sent, 3);
        assert!((SECOND..SECOND * 2).contains(&took), "{took:?}");
    }

    #[test]
    fn a_path_that_loses_what_is_large() {
        let (outcome, took) = probe(session(Some(1480)), |size| {
            Ok((size <= 1300).then_some(MILLISECOND))
        });
        assert_eq!(outcome.mtu.unwrap().path, 1300);
        assert!(took < SECOND * 5, "{took:?}");
    }

    /// A router that says what it carries is believed at once, and asked.
    #[test]
    fn a_path_that_says_what_it_carries() {
        let mut sent = 0;
        let (outcome, _) = probe(session(Some(1480)), |size| {
            sent += 1;
            let complaint = Complaint {
                text: "too large".into(),
                fits: Some(1300),
                too_large: true,
            };
            if size <= 1300 {
                Ok(Some(MILLISECOND))
            } else {
                Err(complaint)
            }
        });
        let mtu = outcome.mtu.unwrap();
        assert_eq!(
            (mtu.path, mtu.complaint.as_deref()),
            (1300, Some("too large"))
        );
        assert!(sent < 15, "{sent}");
    }

    /// Every third packet is lost, whatever its size.
    #[test]
    fn a_path_that_loses_some() {
        let mut sent = 0;
        let (outcome, _) = probe(session(Some(1480)), |_| {
            sent += 1;
            Ok((sent % 3 != 0).then_some(MILLISECOND))
        });
        assert_eq!(outcome.times.len(), 2);
        assert_eq!(outcome.mtu.unwrap().path, 1480);
    }

    #[test]
    fn a_complaint_ends_the_wait() {
        let (outcome, took) = probe(session(None), |_| {
            Err(Complaint {
                text: "host unreachable".into(),
                fits: None,
                too_large: false,
            })
        });
        assert_eq!(outcome.complaint.as_deref(), Some("host unreachable"));
        assert!(took < SECOND / 10, "{took:?}");
    }
}

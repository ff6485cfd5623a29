//! When each target has its turn. The clock is the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::probe::{Order, Outcome};
use crate::state::InterfaceName;

/// The path's MTU is looked for with the first of so many probes: it takes longer than they do, and seldom changes.
const SEARCH_EVERY: u32 = 30;

/// Turns that come within this time are taken together: one awakening serves them all.
const GATHER: Duration = Duration::from_millis(100);

/// One target's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    /// The target's place in the caller's list.
    pub(super) number: usize,
    pub(super) order: Order,
    /// From the start of one probe to the start of the next.
    pub(super) interval: Duration,
}

#[derive(Debug)]
struct Entry {
    task: Task,
    due: Instant,
    under_way: bool,
    /// The tunnel's MTU when the path's was found.
    searched: Option<u32>,
    /// Probes since then.
    since_search: u32,
}

/// The targets with their turns.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// By the target's number.
    entries: BTreeMap<usize, Entry>,
    turns: BTreeSet<(Instant, usize)>,
}

/// What stays the same when the list changes.
fn identity(task: &Task) -> (Option<InterfaceName>, Ipv4Addr) {
    (task.order.device, task.order.to)
}

impl Schedule {
    /// Another list: who was in it with the same interval keeps the turn, the others are spread over their interval. What
    /// was under way is taken for lost where `abandoned`.
    pub(super) fn renew(&mut self, tasks: &[Task], abandoned: bool, now: Instant) {
        let before = std::mem::take(&mut self.entries).into_values();
        let mut known: HashMap<_, Entry> = before.map(|e| (identity(&e.task), e)).collect();
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        for (task, place) in tasks.iter().zip(0..) {
            let due = now + task.interval / count * place;
            let fresh = || Entry {
                task: *task,
                due,
                under_way: false,
                searched: None,
                since_search: 0,
            };
            let mut entry = known.remove(&identity(task)).unwrap_or_else(fresh);
            if entry.task.interval != task.interval {
                entry.due = due;
            }
            entry.task = *task;
            if abandoned && std::mem::take(&mut entry.under_way) {
                entry.due = now;
            }
            self.entries.insert(task.number, entry);
        }
        let turns = self.entries.iter();
        self.turns = turns.map(|(number, entry)| (entry.due, *number)).collect();
    }

    /// When somebody's turn comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.turns.first().map(|(due, _)| *due)
    }

    /// Whose turn has come, or is about to: they are under way from now on. Who still is misses the turn.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(usize, Order)> {
        let mut orders = Vec::new();
        let soon = now + GATHER;
        while let Some((due, number)) = self.turns.first().copied().filter(|(due, _)| *due <= soon)
        {
            self.turns.remove(&(due, number));
            let Some(entry) = self.entries.get_mut(&number) else {
                continue;
            };
            let next = due + entry.task.interval;
            // A clock that was asleep isn't made up for.
            entry.due = if next > now {
                next
            } else {
                now + entry.task.interval
            };
            self.turns.insert((entry.due, number));
            if !std::mem::replace(&mut entry.under_way, true) {
                orders.push((number, entry.order()));
            }
        }
        orders
    }

    /// A probe is over.
    pub(super) fn done(&mut self, number: usize, outcome: &Outcome) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.under_way = false;
        entry.since_search += 1;
        if let Some(mtu) = &outcome.mtu {
            (entry.searched, entry.since_search) = (Some(mtu.tunnel), 1);
        } else if outcome.times.is_empty() {
            // Once it answers again, the way there may be another.
            entry.searched = None;
        }
    }

    /// No probe could be made.
    pub(super) fn failed(&mut self) {
        for entry in self.entries.values_mut() {
            entry.under_way = false;
        }
    }
}

impl Entry {
    fn order(&self) -> Order {
        let Order { mtu, .. } = self.task.order;
        Order {
            search: mtu.is_some() && (self.searched != mtu || self.since_search >= SEARCH_EVERY),
            ..self.task.order
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Mtu;

    const SECOND: Duration = Duration::from_secs(1);

    fn task(number: usize, mtu: u32) -> Task {
        Task {
            number,
            order: Order {
                device: Some("tun1".parse().unwrap()),
                to: Ipv4Addr::from(u32::try_from(number).unwrap()),
                count: 3,
                timeout: SECOND,
                mtu: Some(mtu),
                search: true,
            },
            interval: SECOND * 10,
        }
    }

    fn answered(order: &Order) -> Outcome {
        Outcome {
            sent: 3,
            times: vec![Duration::ZERO; 3],
            mtu: order.search.then(|| Mtu {
                path: 1400,
                tunnel: order.mtu.unwrap(),
                complaint: None,
            }),
            complaint: None,
        }
    }

    /// The second at which each of the numbers has its turns.
    fn turns(schedule: &mut Schedule, from: Instant, seconds: u32) -> Vec<(u32, usize)> {
        let mut turns = Vec::new();
        for second in 0..seconds {
            for (number, order) in schedule.take(from + SECOND * second) {
                turns.push((second, number));
                schedule.done(number, &answered(&order));
            }
        }
        turns
    }

    #[test]
    fn targets_are_spread_over_the_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.renew(&[task(0, 1480), task(1, 1480)], false, start);
        assert_eq!(schedule.next(), Some(start));
        let expected = [(0, 0), (5, 1), (10, 0), (15, 1), (20, 0)];
        assert_eq!(turns(&mut schedule, start, 25), expected);
        // Who was there keeps the turn.
        let now = start + SECOND * 25;
        schedule.renew(&[task(1, 1480), task(7, 1480)], false, now);
        assert_eq!(turns(&mut schedule, now, 10), [(0, 1), (5, 7)]);
        schedule.renew(&[], false, now);
        assert_eq!(schedule.next(), None);
    }

    /// Another interval is another turn, and no reason to look for the path's MTU again.
    #[test]
    fn a_hurry_comes_and_goes() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let slow = task(0, 1480);
        let fast = Task {
            interval: SECOND,
            ..slow
        };
        schedule.renew(&[slow], false, start);
        assert_eq!(turns(&mut schedule, start, 1), [(0, 0)]);
        let now = start + SECOND * 3;
        schedule.renew(&[fast], true, now);
        let (number, order) = schedule.take(now)[0];
        assert!(!order.search);
        schedule.done(number, &answered(&order));
        assert_eq!(schedule.next(), Some(now + SECOND));
        schedule.renew(&[slow], false, now);
        assert_eq!(turns(&mut schedule, now, 11), [(0, 0), (10, 0)]);
    }

    /// One that takes long is asked once at a time, and a clock that was asleep asks once.
    #[test]
    fn nobody_is_asked_twice_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.renew(&[task(0, 1480)], false, start);
        let (number, order) = schedule.take(start)[0];
        assert!(schedule.take(start + SECOND * 10).is_empty());
        assert_eq!(schedule.next(), Some(start + SECOND * 20));
        schedule.done(number, &answered(&order));
        let late = start + SECOND * 1000;
        assert_eq!(schedule.take(late).len(), 1);
        assert_eq!(schedule.next(), Some(late + SECOND * 10));
        schedule.renew(&[task(0, 1480)], true, late);
        assert_eq!(schedule.take(late).len(), 1);
    }

    #[test]
    fn the_path_is_searched_now_and_then() {
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        let mut ask = |schedule: &mut Schedule, mtu, answers| {
            schedule.renew(&[task(0, mtu)], false, now);
            let (number, order) = schedule.take(now)[0];
            let outcome = answered(&order);
            let silence = Outcome::default();
            schedule.done(number, if answers { &outcome } else { &silence });
            now += SECOND * 10;
            order.search
        };
        let searches: Vec<bool> = (0..61).map(|_| ask(&mut schedule, 1480, true)).collect();
        let expected: Vec<bool> = (0..61).map(|probe| probe % 30 == 0).collect();
        assert_eq!(searches, expected);
        // Another MTU, and a return.
        assert!(ask(&mut schedule, 1400, true));
        assert!(!ask(&mut schedule, 1400, true));
        assert!(!ask(&mut schedule, 1400, false));
        assert!(ask(&mut schedule, 1400, true));
    }
}

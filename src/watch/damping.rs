//! Patience: what fails again and again, or is undone again and again, is left alone for longer each time.
//!
//! Each object by itself, so that one never costs another its turn.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::plan::Object;

/// The first wait after a failure, and what each further one doubles.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Repairs of one object in a row that are made at once. The next in the row waits.
const FREE_REPAIRS: u32 = 5;
/// A repair that comes later than this after the one before is a new row.
const ROW: Duration = Duration::from_secs(60);

/// Why an object is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The kernel refused it.
    Refused,
    /// Somebody puts it back whenever it's repaired.
    Fought,
}

/// What happened to an object lately.
struct History {
    cause: Cause,
    count: u32,
    last: Instant,
    until: Instant,
}

/// The objects that aren't doing well.
#[derive(Default)]
pub struct Damping {
    objects: HashMap<Object, History>,
}

impl Damping {
    /// What is to be left alone now.
    pub fn held(&self, now: Instant) -> BTreeSet<Object> {
        let held = self
            .objects
            .iter()
            .filter(|(_, history)| history.until > now);
        held.map(|(object, _)| *object).collect()
    }

    /// When the next of them has its turn.
    pub fn next_turn(&self, now: Instant) -> Option<Instant> {
        let turns = self.objects.values().map(|history| history.until);
        turns.filter(|until| *until > now).min()
    }

    /// The kernel refused a change of the object. `chance` from 0 to 1 spreads the turns of many. How long it waits now.
    pub fn refused(&mut self, object: Object, now: Instant, chance: f64) -> Duration {
        let history = self.entry(object, Cause::Refused, now);
        history.count += 1;
        let wait = doubled(history.count - 1).mul_f64(0.8 + 0.4 * chance);
        history.until = now + wait;
        wait
    }

    /// The object had to be repaired. How long it waits from now on, if this was once too often.
    pub fn repaired(&mut self, object: Object, now: Instant) -> Option<Duration> {
        let history = self.entry(object, Cause::Fought, now);
        history.count += 1;
        let wait = doubled(history.count.checked_sub(FREE_REPAIRS)?);
        history.until = now + wait;
        Some(wait)
    }

    /// The object is as it should be, and nothing had to be done for it: a refusal is over. What was fought over stays
    /// on record for a while.
    pub fn settled(&mut self, is_settled: impl Fn(&Object) -> bool, now: Instant) {
        self.objects.retain(|object, history| match history.cause {
            Cause::Refused => !is_settled(object),
            Cause::Fought => !is_over(history, now),
        });
    }

    /// Something has changed, and it may be what a refused change was waiting for: it has its turn, though not more often
    /// than once in the first wait. Changes that come all the time don't make it more often than that.
    pub fn hurry(&mut self, now: Instant) {
        for history in self.objects.values_mut() {
            if history.cause == Cause::Refused {
                history.until = history.until.min((history.last + FIRST).max(now));
            }
        }
    }

    /// Another topology: what was tried before says nothing any more.
    pub fn forget(&mut self) {
        self.objects.clear();
    }

    /// The objects that wait for their turn, why, and until when.
    pub fn waiting(&self, now: Instant) -> impl Iterator<Item = (&Object, Cause, Instant)> {
        let waiting = self
            .objects
            .iter()
            .filter(move |(_, history)| history.until > now);
        waiting.map(|(object, history)| (object, history.cause, history.until))
    }

    fn entry(&mut self, object: Object, cause: Cause, now: Instant) -> &mut History {
        let fresh = History {
            cause,
            count: 0,
            last: now,
            until: now,
        };
        let history = self.objects.entry(object).or_insert(History { ..fresh });
        if history.cause != cause || is_over(history, now) {
            *history = fresh;
        }
        history.last = now;
        history
    }
}

/// A row ends when nothing happens for as long as the object would have been left alone, and a minute.
fn is_over(history: &History, now: Instant) -> bool {
    now.saturating_duration_since(history.last.max(history.until)) > ROW
}

fn doubled(times: u32) -> Duration {
    FIRST.saturating_mul(1 << times.min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Object {
        Object::Tunnel(name.parse().unwrap())
    }

    #[test]
    fn refusals_wait_twice_as_long_each_time() {
        let (mut damping, start) = (Damping::default(), Instant::now());
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = damping.refused(object("a"), now, 0.5);
            assert!(damping.held(now).contains(&object("a")));
            assert_eq!(damping.next_turn(now), Some(now + wait));
            now += wait;
            assert!(damping.held(now).is_empty());
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        damping.settled(|_| true, now);
        assert_eq!(damping.refused(object("a"), now, 0.5).as_secs(), 1);
    }

    #[test]
    fn news_bring_a_turn_forward() {
        let (mut damping, start) = (Damping::default(), Instant::now());
        let mut now = start;
        for _ in 0..5 {
            now += damping.refused(object("a"), now, 0.5);
        }
        damping.refused(object("a"), now, 0.5);
        damping.hurry(now);
        assert_eq!(damping.next_turn(now), Some(now + FIRST));
        now += FIRST * 2;
        damping.refused(object("a"), now, 0.5);
        now += FIRST * 2;
        damping.hurry(now);
        assert!(damping.held(now).is_empty());
        // A fight isn't over because something happens: it's what happens.
        for _ in 0..FREE_REPAIRS {
            damping.repaired(object("b"), now);
        }
        let turn = damping.next_turn(now);
        damping.hurry(now);
        assert_eq!(damping.next_turn(now), turn);
    }

    #[test]
    fn many_refusals_do_not_meet_again() {
        let (mut damping, now) = (Damping::default(), Instant::now());
        let early = damping.refused(object("a"), now, 0.0);
        let late = damping.refused(object("b"), now, 1.0);
        assert_eq!((early.as_millis(), late.as_millis()), (800, 1200));
    }

    #[test]
    fn a_fight_is_slowed_down_and_nothing_else() {
        let (mut damping, mut now) = (Damping::default(), Instant::now());
        for _ in 1..FREE_REPAIRS {
            assert_eq!(damping.repaired(object("a"), now), None);
            now += Duration::from_millis(5);
        }
        for wait in [1, 2, 4] {
            assert_eq!(
                damping.repaired(object("a"), now),
                Some(Duration::from_secs(wait))
            );
            assert_eq!(damping.held(now), BTreeSet::from([object("a")]));
            now += Duration::from_secs(wait);
        }
        assert_eq!(damping.repaired(object("b"), now), None);
        // Being in order once isn't the end of a fight; a minute's peace is.
        damping.settled(|_| true, now);
        assert_eq!(
            damping.repaired(object("a"), now),
            Some(Duration::from_secs(8))
        );
        now += Duration::from_secs(8 + 61);
        assert_eq!(damping.repaired(object("a"), now), None);
    }

    #[test]
    fn rare_repairs_are_never_slowed_down() {
        let (mut damping, mut now) = (Damping::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(damping.repaired(object("a"), now), None);
            now += ROW + Duration::from_secs(1);
        }
    }
}

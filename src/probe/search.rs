//! The search for the largest packet that arrives: one question at a time.

/// A binary search between a size that is known to arrive and the largest that is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// The largest size that was answered.
    arrives: u32,
    /// The smallest size that was not; one more than the largest of interest while none is known.
    lost: u32,
    next: u32,
}

impl Search {
    /// A search from `least`, which is taken to arrive, to `most`. The largest is asked for first: mostly it arrives.
    pub fn new(least: u32, most: u32) -> Self {
        let most = most.max(least);
        Self {
            arrives: least,
            lost: most.saturating_add(1),
            next: most,
        }
    }

    /// The size to ask for next; `None`: the answer is known.
    pub fn next(&self) -> Option<u32> {
        (self.lost - self.arrives > 1).then_some(self.next)
    }

    /// The packet of the size that was asked for arrived, or not.
    pub fn answer(&mut self, arrived: bool) {
        if arrived {
            self.arrives = self.next;
        } else {
            self.lost = self.next;
        }
        self.next = self.arrives + (self.lost - self.arrives) / 2;
    }

    /// A router has said what it can carry: ask for that next, as it is mostly right.
    pub fn hint(&mut self, size: u32) {
        if self.arrives < size && size < self.lost {
            self.next = size;
        }
    }

    /// The largest size that arrives, as far as is known.
    pub fn largest(&self) -> u32 {
        self.arrives
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Search;

    /// The size found, and the questions it took.
    fn search(least: u32, most: u32, arrives: impl Fn(u32) -> bool) -> (u32, u32) {
        let mut search = Search::new(least, most);
        let mut questions = 0;
        while let Some(size) = search.next() {
            search.answer(arrives(size));
            questions += 1;
        }
        (search.largest(), questions)
    }

    #[test]
    fn a_path_as_wide_as_the_tunnel_takes_one_question() {
        assert_eq!(search(68, 1480, |_| true), (1480, 1));
        assert_eq!(search(68, 68, |_| true), (68, 0));
        assert_eq!(search(68, 20, |_| true), (68, 0));
    }

    #[test]
    fn a_hint_that_is_right_takes_two_questions_more() {
        let mut search = Search::new(68, 1480);
        search.answer(false);
        search.hint(1380);
        assert_eq!(search.next(), Some(1380));
        search.answer(true);
        search.hint(1500);
        search.hint(12);
        let next = search.next().unwrap();
        assert!((1381..1480).contains(&next));
    }

    proptest! {
        #[test]
        fn finds_the_largest_that_arrives(largest in 68..=65515u32, most in 68..=65515u32) {
            let (found, questions) = search(68, most, |size| size <= largest);
            prop_assert_eq!(found, largest.min(most));
            prop_assert!(questions <= 18);
        }
    }
}

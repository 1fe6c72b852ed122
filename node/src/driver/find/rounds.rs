//! The turns of what this node looks for on its own account. So nothing that nobody has keeps this
//! node from looking for the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::search::Wanted;

/// How often holders of the same thing are looked for. An address is dialed once a minute at most.
const SEEK_EVERY: Duration = Duration::from_secs(60);

/// Least time from one look-up to the next. Each asks some 55 nodes, and a node may lack 256 groups
/// of eras. Only a file that was never looked for does not wait, since its user does.
const PAUSE: Duration = Duration::from_secs(10);

/// When holders of each lacking thing were looked for last.
#[derive(Default)]
pub(super) struct Rounds(BTreeMap<Wanted, Duration>);

impl Rounds {
    /// Which of these is looked for now: one that was never looked for, or else the one that was
    /// looked for longest ago, if that is a minute. It counts as looked for.
    pub(super) fn next(&mut self, lacking: &[Wanted], now: Duration) -> Option<Wanted> {
        let is_due = |at: Duration| at.saturating_add(SEEK_EVERY) <= now;
        self.0.retain(|wanted, at| lacking.contains(wanted) || !is_due(*at));
        let sought_at = |wanted: &Wanted| self.0.get(wanted).copied();
        let next = lacking.iter().copied().min_by_key(sought_at)?;
        let is_new_file = matches!(next, Wanted::File(_)) && sought_at(&next).is_none();
        let is_soon = self.0.values().any(|at| at.saturating_add(PAUSE) > now);
        if !sought_at(&next).is_none_or(is_due) || (is_soon && !is_new_file) {
            return None;
        }
        self.0.insert(next, now);
        Some(next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::hash::Hash;
    use protocol::eras::Era;

    use super::*;

    #[test]
    fn one_thing_that_nobody_has_keeps_nothing_else_from_its_turn() {
        let [a, b, c] = [1, 2, 3].map(|era| Wanted::Era(Era(era)));
        let mut rounds = Rounds::default();
        let mut next = |lacking: &[Wanted], at| rounds.next(lacking, Duration::from_secs(at));
        assert_eq!(next(&[], 0), None);
        assert_eq!([0, 10, 20, 30].map(|at| next(&[a, b], at)), [Some(a), Some(b), None, None]);
        assert_eq!(next(&[a, b, c], 60), Some(c), "a newcomer goes first");
        assert_eq!([70, 80].map(|at| next(&[a, b, c], at)), [Some(a), Some(b)]);
        assert_eq!([119, 120].map(|at| next(&[a, b, c], at)), [None, Some(c)]);
        assert_eq!(next(&[b], 130), None);
        assert_eq!(next(&[a, b], 131), Some(a));
        assert_eq!(next(&[], 140), None);
        assert_eq!([next(&[b], 189), next(&[a], 190)], [Some(b), None], "claims that come and go");
    }

    #[test]
    fn only_a_new_file_is_looked_for_at_once() {
        let [a, b] = [1, 2].map(|era| Wanted::Era(Era(era)));
        let file = Wanted::File(Hash::ZERO);
        let mut rounds = Rounds::default();
        let mut next = |lacking: &[Wanted], at| rounds.next(lacking, Duration::from_secs(at));
        assert_eq!(next(&[a, b], 0), Some(a));
        assert_eq!([1, 2, 9, 10].map(|at| next(&[a, b], at)), [None, None, None, Some(b)]);
        assert_eq!(next(&[file, a, b], 11), Some(file));
        assert_eq!(
            [70, 71, 79, 80].map(|at| next(&[file, a, b], at)),
            [Some(a), None, None, Some(b)]
        );
        assert_eq!([81, 90].map(|at| next(&[file, a, b], at)), [None, Some(file)]);
    }
}

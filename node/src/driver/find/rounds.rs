//! The turns of what this node looks for on its own account. So nothing that nobody has keeps this
//! node from looking for the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::search::Wanted;

/// How often holders of the same thing are looked for. An address is dialed once a minute at most.
const SEEK_EVERY: Duration = Duration::from_secs(60);

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
        if !sought_at(&next).is_none_or(is_due) {
            return None;
        }
        self.0.insert(next, now);
        Some(next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
}

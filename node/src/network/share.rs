//! A budget of bytes that many share: the fuller it is, the less one of them may take.

/// The rule of a budget. The caller counts the bytes of all users and of each user.
///
/// One user may have half of what the others leave, and `floor` in any case. So a few users that
/// take all they can get still leave room for later ones, and `n` users together have at most `all`
/// plus `n` times `floor`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Bytes for all together.
    pub(crate) all: usize,
    /// Bytes that each user may have, however full the budget is.
    pub(crate) floor: usize,
}

impl Share {
    /// Whether a user that has `own` of the `taken` bytes may have `more`.
    pub(crate) const fn allows(&self, own: usize, taken: usize, more: usize) -> bool {
        let left = self.all.saturating_sub(taken.saturating_sub(own));
        let most = if left / 2 > self.floor { left / 2 } else { self.floor };
        own.saturating_add(more) <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_have_half_of_what_the_others_leave() {
        let share = Share { all: 1_000, floor: 10 };
        // own, taken, more, whether it is allowed
        let cases = [
            (0, 0, 500, true),
            (0, 0, 501, false),
            (500, 500, 0, true),
            (500, 500, 1, false),
            (0, 500, 250, true),
            (0, 500, 251, false),
            (100, 600, 150, true),
            (100, 600, 151, false),
            (0, 1_000, 10, true),
            (0, 1_000, 11, false),
            (0, 9_999, 10, true),
            (usize::MAX, usize::MAX, 1, false),
        ];
        for (own, taken, more, expected) in cases {
            assert_eq!(share.allows(own, taken, more), expected, "{own} of {taken}, {more} more");
        }
    }

    #[test]
    fn many_that_take_all_they_can_stay_within_all_and_their_floors() {
        let share = Share { all: 1_000, floor: 10 };
        let mut taken = 0;
        for _ in 0..100 {
            let mut own = 0;
            while share.allows(own, taken, 1) {
                own += 1;
                taken += 1;
            }
            assert!(own >= share.floor);
        }
        assert!(taken <= share.all + 100 * share.floor, "{taken}");
    }
}

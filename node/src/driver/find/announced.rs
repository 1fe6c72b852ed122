//! What the index knows from this node.

use std::collections::BTreeSet;

use protocol::find::Object;

/// The groups of eras and the files that the network was told of.
#[derive(Default)]
pub(super) struct Announced(BTreeSet<Object>);

impl Announced {
    /// Tells what has come and gone. `tell` says of an object whether it is here now, and returns
    /// whether the network took that in. What it did not take in is told the next time.
    pub(super) fn update(&mut self, here: &BTreeSet<Object>, tell: impl Fn(Object, bool) -> bool) {
        let gone: Vec<Object> = self.0.difference(here).copied().collect();
        let new: Vec<Object> = here.difference(&self.0).copied().collect();
        for object in gone.into_iter().filter(|object| tell(*object, false)) {
            self.0.remove(&object);
        }
        self.0.extend(new.into_iter().filter(|object| tell(*object, true)));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ledger::hash::Hash;
    use protocol::eras::Era;
    use protocol::find::EraGroup;

    use super::*;

    #[test]
    fn what_the_network_had_no_room_for_is_told_again() {
        let (a, b) = (Object::Eras(EraGroup::of(Era(0), 1)), Object::File(Hash::ZERO));
        let mut announced = Announced::default();
        let mut told = |here: &[Object], has_room: &dyn Fn(Object) -> bool| {
            let told = RefCell::new(Vec::new());
            announced.update(&here.iter().copied().collect(), |object, is_here| {
                told.borrow_mut().push((object, is_here));
                has_room(object)
            });
            told.into_inner()
        };
        assert_eq!(told(&[a, b], &|object| object == a), [(a, true), (b, true)]);
        assert_eq!(told(&[a, b], &|_| true), [(b, true)]);
        assert_eq!(told(&[a, b], &|_| true), []);
        assert_eq!(told(&[b], &|_| false), [(a, false)]);
        assert_eq!(told(&[b], &|_| true), [(a, false)]);
        assert_eq!(told(&[], &|_| true), [(b, false)]);
    }
}

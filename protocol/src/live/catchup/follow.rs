//! The machine's side of catching up: when it begins and ends, and what is asked for.

use std::time::Duration;

use ledger::units::Height;

use super::CatchUpError;
use crate::live::{Machine, Notice};
use crate::message::Request;

impl Machine {
    /// Fetches and commits blocks that others made final, and begins or ends catching up.
    pub(crate) fn follow_others(&mut self) {
        if self.phase.is_closed() {
            return;
        }
        let (tip, now) = (self.chain.height(), self.turn.now.elapsed);
        let is_catching_up = self.phase.is_catching_up();
        match (is_catching_up, self.catchup.is_behind(tip, now, is_catching_up)) {
            (true, false) => {
                self.phase.resume();
                self.turn.notice(Notice::CaughtUp(tip));
            }
            (false, true) => {
                self.phase.rest();
                self.turn.notice(Notice::Behind(tip, self.catchup.known()));
            }
            _ => {}
        }
        if !self.phase.is_catching_up() && self.fetch_at().is_none_or(|at| at > now) {
            return;
        }
        match self.catchup.take_next(&self.chain.state) {
            Some(Ok((commits, after))) => {
                return self.commit(commits, after, self.origin_of_others());
            }
            Some(Err(error)) => self.on_catchup_error(error),
            None => {}
        }
        for (peer, from) in self.catchup.next_requests(tip, now) {
            let id = self.turn.request(peer, &Request::Blocks(from));
            self.catchup.asked(id, peer, from, now);
        }
    }

    /// When to fetch the next block while consensus still works on it, if a certificate proves it.
    fn fetch_at(&self) -> Option<Duration> {
        let next = self.catchup.next_header(self.chain.height());
        let is_body_coming = next.is_some_and(|next| self.bodies.is_wanted(&next.header.hash()));
        self.catchup.fetch_at(is_body_coming)
    }

    /// When [`Machine::follow_others`] is due next.
    pub(crate) fn follow_deadline(&self) -> Option<Duration> {
        let now = self.turn.now.elapsed;
        let fetch = self.fetch_at().filter(|at| *at > now);
        fetch.into_iter().chain(self.catchup.deadline(now)).min()
    }

    pub(crate) fn on_catchup_error(&mut self, error: CatchUpError) {
        match error {
            CatchUpError::Peer(peer, offence) => {
                self.catchup.on_disconnected(peer);
                self.ban(peer, offence);
            }
            CatchUpError::Certified(error) => {
                self.halt(format!("a certified block breaks the rules: {error}"))
            }
        }
    }

    /// Highest height that any peer claims, without the peers that failed when last asked.
    #[must_use]
    pub fn best_peer_height(&self) -> Height {
        self.catchup.best()
    }
}

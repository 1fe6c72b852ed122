//! What `live` hands to the archive and to the task that searches, since it reads the events of the
//! network.

use ledger::units::SegmentIndex;
use protocol::Ticket;
use protocol::eras::Announcement;
use protocol::search::FloodMessage;
use tokio::sync::mpsc;

use super::Driver;
use crate::driver::find::ToFind;
use crate::network::{PeerId, RequestError, RequestId, ResponseTicket};

/// Most messages that wait for the archive.
pub(crate) const TO_ARCHIVE: usize = ANSWERS + 256;
/// Of these places, those that questions of peers leave free. So no crowd of questions makes
/// answers of honest peers seem lost. The archive has fewer requests in flight: 240 audits and 720
/// exchanges with 120 peers.
const ANSWERS: usize = 1_024;

/// A message to the archive.
pub(crate) enum ToArchive {
    /// `live` has begun: from now on it hands over answers.
    Began,
    /// A peer says what it keeps, and asks what this node keeps.
    Eras { ticket: ResponseTicket, from: PeerId, said: Announcement },
    /// A peer asks to see a chunk.
    Chunk { ticket: ResponseTicket, from: PeerId, segment: SegmentIndex, chunk: u64 },
    /// The answer to a request that is not one of `live`.
    Response { id: RequestId, result: Result<Vec<u8>, RequestError> },
}

impl Driver {
    /// Hands something to the archive. If it has no room, an answer counts as lost.
    pub(super) fn to_archive(&self, message: ToArchive) {
        let _no_room = self.archive.try_send(message);
    }

    /// Hands a message of the flood query to the task that searches. If it has no room, the peer
    /// hears that this node is busy.
    pub(super) fn tell_find(&mut self, ticket: Ticket, message: FloodMessage) {
        if let Some((ticket, from)) = self.tickets.responses.remove(&ticket) {
            let _no_room = self.find.try_send(ToFind::Flood { ticket, from, message });
        }
    }

    /// Hands the question of a ticket to the archive. If it has no room, the peer hears that this
    /// node is busy.
    pub(super) fn ask_archive(
        &mut self,
        ticket: Ticket,
        question: impl FnOnce(ResponseTicket, PeerId) -> ToArchive,
    ) {
        if let Some((ticket, from)) = self.tickets.responses.remove(&ticket)
            && has_room(&self.archive)
        {
            self.to_archive(question(ticket, from));
        }
    }
}

/// Whether there is room for a question of a peer.
fn has_room(archive: &mpsc::Sender<ToArchive>) -> bool {
    archive.capacity() > ANSWERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_crowd_of_questions_takes_the_places_of_answers() {
        let (archive, _inbox) = mpsc::channel(TO_ARCHIVE);
        let hand = |count: usize, has_room: fn(&mpsc::Sender<ToArchive>) -> bool| {
            let taken =
                |_: &usize| has_room(&archive) && archive.try_send(ToArchive::Began).is_ok();
            (0..count).filter(taken).count()
        };
        assert_eq!(hand(10_000, has_room), 256, "questions");
        assert_eq!(hand(10_000, |_| true), 1_024, "answers");
    }
}

//! What `live` hands to the archive and to the task that searches, since it reads the events of the
//! network.

use ledger::units::SegmentIndex;
use protocol::Ticket;
use protocol::eras::Announcement;
use protocol::search::FloodMessage;

use super::Driver;
use crate::driver::find::ToFind;
use crate::network::{PeerId, RequestId, ResponseTicket};

/// Most questions and answers of peers that wait for the archive.
pub(crate) const TO_ARCHIVE: usize = 256;

/// A message to the archive.
pub(crate) enum ToArchive {
    /// `live` has begun: from now on it hands over answers.
    Began,
    /// A peer says what it keeps, and asks what this node keeps.
    Eras { ticket: ResponseTicket, from: PeerId, said: Announcement },
    /// A peer asks to see a chunk.
    Chunk { ticket: ResponseTicket, from: PeerId, segment: SegmentIndex, chunk: u64 },
    /// The answer to a request that is not one of `live`. `None` if there is none.
    Response { id: RequestId, bytes: Option<Vec<u8>> },
}

impl Driver {
    /// Hands something to the archive. If it has no room, the peer that asked hears that this node
    /// is busy, and an answer counts as lost.
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

    /// Hands the question of a ticket to the archive.
    pub(super) fn ask_archive(
        &mut self,
        ticket: Ticket,
        question: impl FnOnce(ResponseTicket, PeerId) -> ToArchive,
    ) {
        if let Some((ticket, from)) = self.tickets.responses.remove(&ticket) {
            self.to_archive(question(ticket, from));
        }
    }
}

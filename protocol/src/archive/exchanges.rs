//! Exchanges of announcements: each side tells the other what it keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Archive, Effect};
use crate::ids::{PeerId, RequestId};

/// Interval at which announcements are exchanged with each peer although nothing has changed, since
/// a request may have been lost.
const REFRESH: Duration = Duration::from_secs(60);
/// Eras that came are announced together, once in this time. Eras that go are announced at once.
const TOGETHER: Duration = Duration::from_secs(5);
/// An exchange that is not answered after this time has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Exchanges in flight. A peer gets one when eras are withdrawn, one each [`TOGETHER`] while other
/// eras come or go, one each [`REFRESH`], and one after each failed audit. Each ends after
/// [`PATIENCE`].
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    in_flight: BTreeMap<RequestId, (PeerId, Duration)>,
    /// Something has changed that peers have not heard.
    is_news: bool,
    /// When all peers are told of it.
    tell_at: Duration,
    last_told: Duration,
}

impl Exchanges {
    /// Ends an exchange. Returns whether it was in flight with this peer.
    pub(super) fn end(&mut self, id: RequestId, peer: PeerId) -> bool {
        self.in_flight.remove(&id).is_some_and(|(asked, _)| asked == peer)
    }

    /// Ends the exchanges that have been in flight for too long.
    pub(super) fn take_late(&mut self, now: Duration) -> Vec<(PeerId, RequestId)> {
        let late = self.in_flight.extract_if(.., |_, (_, until)| *until <= now);
        late.map(|(question, (peer, _))| (peer, question)).collect()
    }
}

impl Archive {
    /// The announcement changes. Peers that ask get the new one from now on, and all others hear it
    /// soon.
    pub(super) fn announce(&mut self) {
        self.announcement = self.shelf.announcement();
        if !self.exchanges.is_news {
            self.exchanges.is_news = true;
            self.exchanges.tell_at = self.exchanges.last_told.saturating_add(TOGETHER);
        }
    }

    /// The announcement has fewer eras than before.
    pub(super) fn announce_at_once(&mut self) {
        self.announce();
        self.exchanges.tell_at = self.now;
    }

    pub(super) fn ask(&mut self, peer: PeerId) -> RequestId {
        let request = self.next_request();
        self.exchanges.in_flight.insert(request, (peer, self.now.saturating_add(PATIENCE)));
        self.effects.push(Effect::Exchange { peer, request });
        request
    }

    /// Exchanges announcements with the peers whose turn it is: all of them if there is news.
    pub(super) fn exchange(&mut self) {
        let now = self.now;
        let tells_all = self.exchanges.is_news && now >= self.exchanges.tell_at;
        if tells_all {
            (self.exchanges.is_news, self.exchanges.last_told) = (false, now);
        }
        let mut due = Vec::new();
        for (number, peer) in self.peers.connected_mut() {
            if tells_all || now >= peer.exchange_at {
                peer.exchange_at = now.saturating_add(REFRESH);
                due.push(number);
            }
        }
        for peer in due {
            self.ask(peer);
        }
    }
}

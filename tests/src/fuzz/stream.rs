//! The bytes of an input as a stream of choices.

/// Bytes that are not read yet. Past the end every choice is 0.
pub(super) struct Stream<'a>(pub(super) &'a [u8]);

impl<'a> Stream<'a> {
    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// Reads a length of 16 bits, and then this many bytes, or fewer if the input ends before.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A number below `end`, which is above 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }
}

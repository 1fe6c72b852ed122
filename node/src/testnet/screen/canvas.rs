//! Where and how text is drawn: cut to its area, in colours or without.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use super::text::{cut, width};

/// Colours of nodes. Each node has a letter too, so no colour is needed to tell them apart.
const NODE_COLOURS: [Color; 6] =
    [Color::Cyan, Color::Green, Color::Yellow, Color::Magenta, Color::Blue, Color::Red];

/// What a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// Less important than its neighbours.
    Dim,
    Bold,
    Good,
    Bad,
    Warning,
    /// The heading of a pane.
    Heading,
    /// The heading of the chosen pane.
    Chosen,
    /// The text belongs to the node at this position.
    Node(usize),
}

/// The buffer of a frame. All text goes through [`Self::put`], which keeps it in its area.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    has_colours: bool,
}

impl<'a> Canvas<'a> {
    pub(super) const fn new(buffer: &'a mut Buffer, has_colours: bool) -> Self {
        Self { buffer, has_colours }
    }

    /// Writes text at a place of an area, counted from its upper left corner. Text that does not
    /// fit is cut off, and ends with an ellipsis. Returns the next free column.
    pub(super) fn put(
        &mut self,
        area: Rect,
        (column, row): (u16, u16),
        text: &str,
        look: Look,
    ) -> u16 {
        let area = area.intersection(self.buffer.area);
        if row >= area.height || column >= area.width {
            return column;
        }
        let text = cut(text, usize::from(area.width - column));
        let style = self.style(look);
        self.buffer.set_string(area.x + column, area.y + row, &text, style);
        column.saturating_add(columns(&text))
    }

    /// Writes a row of texts, one after the other.
    pub(super) fn row(&mut self, area: Rect, row: u16, texts: &[(&str, Look)]) {
        let mut column = 0;
        for (at, (text, look)) in texts.iter().enumerate() {
            let is_full = column >= area.width;
            let has_more = texts[at..].iter().any(|(text, _)| !text.trim().is_empty());
            if is_full && has_more && area.width > 0 {
                // The texts so far fill the row, and more follows: an ellipsis takes the last
                // column.
                self.put(area, (area.width - 1, row), "…", Look::Plain);
                return;
            }
            column = self.put(area, (column, row), text, *look);
        }
    }

    /// The first row of a pane, over its whole width.
    pub(super) fn heading(&mut self, area: Rect, text: &str, is_chosen: bool) {
        if area.is_empty() {
            return;
        }
        let look = if is_chosen { Look::Chosen } else { Look::Heading };
        self.put(area, (0, 0), &padded(text, usize::from(area.width), false), look);
    }

    fn style(&self, look: Look) -> Style {
        let style = Style::new();
        let coloured = |colour| match self.has_colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        };
        match look {
            Look::Plain => style,
            Look::Dim => style.add_modifier(Modifier::DIM),
            Look::Bold => style.add_modifier(Modifier::BOLD),
            Look::Good => coloured(Color::Green),
            Look::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Look::Warning => coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            Look::Heading => style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
            Look::Chosen => style.add_modifier(Modifier::REVERSED | Modifier::BOLD),
            Look::Node(position) => coloured(NODE_COLOURS[position % NODE_COLOURS.len()]),
        }
    }
}

/// Columns that a text takes, as the terminal counts them.
pub(super) fn columns(text: &str) -> u16 {
    u16::try_from(width(text)).unwrap_or(u16::MAX)
}

/// The text cut or padded to this many columns, aligned to the left, or to the right if `is_right`.
pub(super) fn padded(text: &str, columns: usize, is_right: bool) -> String {
    let text = cut(text, columns);
    let space = " ".repeat(columns.saturating_sub(width(&text)));
    if is_right { format!("{space}{text}") } else { format!("{text}{space}") }
}

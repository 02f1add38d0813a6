//! Rows under headings, fitted to the width there is. Knows nothing of what the rows mean.

use std::io;

use crate::terminal::{Screen, Span, columns, cut, plain, strong};

/// Which edge the cells of a column share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One column.
#[derive(Debug, Clone, Copy)]
struct Column {
    heading: &'static str,
    edge: Edge,
    /// Whether its cells may be cut; what people copy, such as ids, may not.
    may_shrink: bool,
}

/// Rows under headings. Every row has as many cells as there are columns.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<Span>,
    /// What is too long for a cell, or must be whole to be copied.
    note: Option<Span>,
}

/// What separates two columns.
const GAP: &str = "  ";
/// What stands before a note.
const NOTE: &str = "    ";
/// A cell is not cut below so many columns: then each row is shown as a paragraph instead.
const NARROWEST: usize = 12;

impl Table {
    /// A table without columns.
    pub(crate) fn new() -> Self {
        Self { columns: Vec::new(), rows: Vec::new() }
    }

    /// With a column of words that are copied, and therefore never cut.
    pub(crate) fn words(self, heading: &'static str) -> Self {
        self.with(Column { heading, edge: Edge::Left, may_shrink: false })
    }

    /// With a column of text that may be cut.
    pub(crate) fn text(self, heading: &'static str) -> Self {
        self.with(Column { heading, edge: Edge::Left, may_shrink: true })
    }

    /// With a column of numbers.
    pub(crate) fn numbers(self, heading: &'static str) -> Self {
        self.with(Column { heading, edge: Edge::Right, may_shrink: false })
    }

    fn with(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Span; N]) {
        assert_eq!(cells.len(), self.columns.len(), "every row has a cell for each column");
        self.rows.push(Row { cells: cells.into(), note: None });
    }

    /// Puts a line of its own below the last row: what is too long for a cell, or must be whole to be copied.
    /// Empty text puts none.
    pub(crate) fn note(&mut self, note: Span) {
        if let Some(row) = self.rows.last_mut().filter(|_| !note.text.is_empty()) {
            row.note = Some(note);
        }
    }

    /// Writes the table behind `indent`, cut to the screen's width; as paragraphs when it cannot fit.
    pub(crate) fn write(&self, indent: &str, screen: &mut Screen<'_>) -> io::Result<()> {
        let natural = self.natural_widths();
        let fitted = match screen.width {
            None => Some(natural),
            Some(width) => self.fit(natural, width.saturating_sub(columns(indent))),
        };
        match fitted {
            Some(widths) => self.write_rows(indent, &widths, screen),
            None => self.write_paragraphs(indent, screen),
        }
    }

    fn natural_widths(&self) -> Vec<usize> {
        let widest =
            |index: usize| self.rows.iter().map(|row| columns(&row.cells[index].text)).max().unwrap_or(0);
        self.columns
            .iter()
            .enumerate()
            .map(|(index, column)| columns(column.heading).max(widest(index)))
            .collect()
    }

    /// Takes columns from the widest shrinkable cells until everything fits.
    fn fit(&self, mut widths: Vec<usize>, room: usize) -> Option<Vec<usize>> {
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > room {
            let widest = (0..widths.len())
                .filter(|&index| self.columns[index].may_shrink && widths[index] > NARROWEST)
                .max_by_key(|&index| widths[index])?;
            widths[widest] -= 1;
        }
        Some(widths)
    }

    fn write_rows(&self, indent: &str, widths: &[usize], screen: &mut Screen<'_>) -> io::Result<()> {
        let headings: Vec<Span> = self.columns.iter().map(|column| strong(column.heading)).collect();
        self.write_row(indent, widths, &headings, screen)?;
        for row in &self.rows {
            self.write_row(indent, widths, &row.cells, screen)?;
            if let Some(note) = &row.note {
                screen.line(&[plain(indent), plain(NOTE), note.clone()])?;
            }
        }
        Ok(())
    }

    fn write_row(
        &self,
        indent: &str,
        widths: &[usize],
        cells: &[Span],
        screen: &mut Screen<'_>,
    ) -> io::Result<()> {
        let mut line = vec![plain(indent)];
        for (index, cell) in cells.iter().enumerate() {
            let text = cut(&cell.text, widths[index]);
            let padding = plain(" ".repeat(widths[index] - columns(&text)));
            let cell = Span { text, look: cell.look };
            let gap = plain(if index == 0 { "" } else { GAP });
            match self.columns[index].edge {
                Edge::Left => line.extend([gap, cell, padding]),
                Edge::Right => line.extend([gap, padding, cell]),
            }
        }
        // Nothing stands behind the last word of a line.
        while line.last().is_some_and(|span| span.text.trim().is_empty()) {
            line.pop();
        }
        screen.line(&line)
    }

    fn write_paragraphs(&self, indent: &str, screen: &mut Screen<'_>) -> io::Result<()> {
        let label = self.columns.iter().map(|column| columns(column.heading)).max().unwrap_or(0);
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                screen.blank()?;
            }
            for (column, cell) in self.columns.iter().zip(&row.cells) {
                let heading = format!("{indent}{:label$}{GAP}", column.heading);
                if !cell.text.is_empty() {
                    screen.line(&[strong(heading), cell.clone()])?;
                }
            }
            if let Some(note) = &row.note {
                screen.line(&[plain(indent), note.clone()])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Format;

    fn shown(width: Option<usize>) -> String {
        let mut table = Table::new().words("ID").text("TITLE").numbers("COUNT");
        table.row([plain("task-001"), plain("Update the dependencies to their latest"), plain(7)]);
        table.note(plain("a note is never cut, whatever the width of the terminal is"));
        table.row([plain("task-2"), plain("日本語 \u{1b}[2J"), plain(1234)]);
        let mut written = Vec::new();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut screen = Screen::new(&mut written, Format::Table, now);
        screen.width = width;
        table.write("", &mut screen).unwrap();
        drop(screen);
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be_and_no_wider_than_it_may() {
        insta::assert_snapshot!(shown(None), @r"
        ID        TITLE                                    COUNT
        task-001  Update the dependencies to their latest      7
            a note is never cut, whatever the width of the terminal is
        task-2    日本語 \u{1b}[2J                          1234
        ");
        insta::assert_snapshot!(shown(Some(40)), @r"
        ID        TITLE                    COUNT
        task-001  Update the dependencie…      7
            a note is never cut, whatever the width of the terminal is
        task-2    日本語 \u{1b}[2J          1234
        ");
        insta::assert_snapshot!(shown(Some(20)), @r"
        ID     task-001
        TITLE  Update the dependencies to their latest
        COUNT  7
        a note is never cut, whatever the width of the terminal is

        ID     task-2
        TITLE  日本語 \u{1b}[2J
        COUNT  1234
        ");
    }
}

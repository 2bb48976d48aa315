//! Tables without borders, one line per row.

use comfy_table::{CellAlignment, presets};

use super::{output::Paint, words};

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct Table {
    inner: comfy_table::Table,
    paints: Vec<Option<Paint>>,
}

/// On which side of its column a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Names and the like.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// An empty table with these columns.
    pub(super) fn new(columns: &[(&str, Side)]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING);
        inner.set_header(columns.iter().map(|(name, _)| *name));
        for (column, (_, side)) in inner.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(match side {
                Side::Left => CellAlignment::Left,
                Side::Right => CellAlignment::Right,
            });
        }
        Self { inner, paints: vec![Some(Paint::Heading)] }
    }

    /// Adds a row, painted as a whole: the layout counts characters, and would count those that paint.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>, paint: Option<Paint>) {
        self.inner.add_row(cells.into_iter().map(|cell| words::line(&cell)));
        self.paints.push(paint);
    }

    /// The lines.
    pub(super) fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        for (line, paint) in self.inner.lines().zip(&self.paints) {
            let line = line.trim_end();
            text.push_str(&paint.map_or_else(|| line.to_owned(), |paint| paint.on(line, colour)));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_cell_never_breaks_its_row() {
        let mut table = Table::new(&[("NAME", Side::Left), ("OPEN", Side::Right)]);
        table.row(["web".into(), "7".into()], Some(Paint::Serving));
        table.row(["a\nb\x1b[1m".into(), "12345".into()], None);
        insta::assert_snapshot!(table.render(false));
        let coloured = table.render(true);
        let lines: Vec<&str> = coloured.lines().collect();
        assert!(lines[1].starts_with("\x1b[") && lines[1].ends_with("\x1b[0m"));
        assert!(lines[2].starts_with('a'));
    }
}

//! Text in columns.

/// Rows whose cells line up; columns without anything in them are left out.
#[derive(Default)]
pub(super) struct Columns {
    header: Vec<&'static str>,
    /// Columns that line up on the right: numbers.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// With the names of the columns; one that begins with `>` lines up on the right.
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self {
            right: header.iter().map(|name| name.starts_with('>')).collect(),
            header: header.iter().map(|name| name.trim_start_matches('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, each with this before it; the names come first, unless all are empty.
    pub(super) fn print(&self, indent: &str) -> String {
        let named = self.header.iter().any(|name| !name.is_empty());
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        let used: Vec<usize> = (0..self.header.len())
            .filter(|column| self.rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty())))
            .collect();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or(0);
            cells.max(header[column].len())
        };
        let line = |row: &[String]| {
            let mut text = String::new();
            for column in &used {
                let cell = row.get(*column).map_or("", String::as_str);
                let gap = " ".repeat(width(*column).saturating_sub(console::measure_text_width(cell)));
                let (before, after) = if self.right[*column] { (gap.as_str(), "") } else { ("", gap.as_str()) };
                text.push_str(&format!("{before}{cell}{after}  "));
            }
            format!("{indent}{}", text.trim_end())
        };
        let mut text = String::new();
        if named && !self.rows.is_empty() {
            text.push_str(&format!("{}\n", console::style(line(&header)).dim()));
        }
        for row in &self.rows {
            text.push_str(&line(row));
            text.push('\n');
        }
        text
    }
}

/// A size as disks are laid out: "4 MiB", "1.5 GiB"; "4096 B" where it is no round number.
pub(super) fn exact(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        let one = 1_u64 << shift;
        if bytes >= one && bytes.is_multiple_of(one) {
            return format!("{} {unit}", bytes >> shift);
        }
        // One digit behind the point, where that is all of it.
        if bytes >= one && bytes.is_multiple_of(one / 2) {
            return format!("{:.1} {unit}", bytes as f64 / one as f64);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        let mut columns = Columns::new(&["name", ">size", "note"]);
        columns.row(["a".into(), "1".into(), String::new()]);
        columns.row(["bcdefg".into(), "10000".into(), String::new()]);
        let text = console::strip_ansi_codes(&columns.print(" ")).into_owned();
        assert_eq!(text, " name     size\n a           1\n bcdefg  10000\n");
        assert_eq!(Columns::new(&["a"]).print(""), "");
    }

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in
            [(4 << 20, "4 MiB"), (3 << 29, "1.5 GiB"), (34 * 512, "17 KiB"), (512, "512 B"), (1025, "1025 B")]
        {
            assert_eq!(exact(bytes), text);
        }
        assert_eq!(exact((1 << 20) + 512), "1024.5 KiB");
    }
}

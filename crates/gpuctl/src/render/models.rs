//! Models as tables.

use std::fmt::Write;

use gpuctl_control::wire::models::{
    BenchDocument, BenchRowDocument, ModelsDocument, PulledDocument, VerifiedDocument,
};

const MEGABYTE: f64 = 1e6;

pub(super) fn list(document: &ModelsDocument) -> String {
    let heads = ["model", "task", "state", "MB", "weights", "device", "licence"];
    let mut rows = vec![heads.map(str::to_owned)];
    for model in &document.models {
        let mark = if model.default { " (default)" } else { "" };
        rows.push([
            model.name.clone(),
            format!("{}{mark}", model.task),
            model.state.clone(),
            megabytes(model.bytes),
            model.precision.clone(),
            model.device.clone().unwrap_or_else(|| "any".to_owned()),
            model.licence.clone(),
        ]);
    }
    let mut text = table(&rows);
    _ = write!(text, "in {}; `gpuctl models pull NAME` downloads known models", document.folder);
    text
}

pub(super) fn verified(document: &VerifiedDocument) -> String {
    let mut lines = Vec::new();
    for model in &document.models {
        lines.push(match &model.problem {
            None => format!("ok     {}", model.name),
            Some(problem) => format!("wrong  {}: {problem}", model.name),
        });
        lines.extend(model.fix.iter().map(|fix| format!("       {fix}")));
    }
    lines.join("\n")
}

pub(super) fn pulled(document: &PulledDocument) -> String {
    let mut lines = Vec::new();
    for file in &document.files {
        let how = file.from.as_ref().map_or("present".to_owned(), |from| format!("from {from}"));
        lines.push(format!("{}/{}  {} MB  {how}", file.model, file.path, megabytes(file.bytes)));
    }
    lines.join("\n")
}

pub(super) fn bench(document: &BenchDocument) -> String {
    let heads = ["graph", "weights", "device", "batch", "ms/call", "items/s", "load s"];
    let mut rows = vec![heads.map(str::to_owned)];
    let row = |row: &BenchRowDocument| {
        [
            row.graph.clone(),
            row.precision.clone(),
            row.device.clone(),
            row.batch.to_string(),
            format!("{:.2}", row.call_ms_p50),
            format!("{:.1}", row.items_per_second),
            format!("{:.2}", row.load_seconds),
        ]
    };
    rows.extend(document.rows.iter().map(row));
    let mut text = table(&rows);
    for skipped in &document.skipped {
        _ = writeln!(text, "skipped {} on {}: {}", skipped.graph, skipped.device, skipped.why);
    }
    let threads = document.threads;
    _ = write!(text, "{threads} CPU threads; median call; the graph only");
    text
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MEGABYTE)
}

/// Columns as wide as their widest; numbers to the right.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let number = cell.parse::<f64>().is_ok();
            let cell = if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line.push_str(&cell);
            line.push_str("  ");
        }
        _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = [["a", "n"], ["longer", "1.5"], ["b", "10.5"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a       n\nlonger   1.5\nb       10.5\n");
    }
}

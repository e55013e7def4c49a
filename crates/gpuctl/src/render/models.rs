//! Models as tables.

use gpuctl_control::wire::models::{
    BenchDocument, BenchRowDocument, ModelsDocument, PulledDocument, VerifiedDocument,
};

use super::words::{Lines, shown_name};

const MEGABYTE: f64 = 1e6;

pub(super) fn list(document: &ModelsDocument) -> Lines {
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
    let mut lines = table(&rows);
    lines.add(format!("in {}; `gpuctl models pull NAME` downloads known models", document.folder));
    lines
}

pub(super) fn verified(document: &VerifiedDocument) -> Lines {
    let mut lines = Lines::default();
    for model in &document.models {
        lines.add(match &model.problem {
            None => format!("ok     {}", model.name),
            Some(problem) => format!("wrong  {}: {problem}", model.name),
        });
        if let Some(fix) = &model.fix {
            lines.add(format!("       {fix}"));
        }
    }
    lines
}

pub(super) fn pulled(document: &PulledDocument) -> Lines {
    let mut lines = Lines::default();
    for file in &document.files {
        let how = file.from.as_ref().map_or("present".to_owned(), |from| format!("from {from}"));
        let (model, path) = (&file.model, &file.path);
        lines.add(format!("{model}/{path}  {} MB  {how}", megabytes(file.bytes)));
    }
    lines
}

pub(super) fn bench(document: &BenchDocument) -> Lines {
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
    let mut lines = table(&rows);
    for skipped in &document.skipped {
        lines.add(format!("skipped {} on {}: {}", skipped.graph, skipped.device, skipped.why));
    }
    lines.add(format!("{} CPU threads; median call; the graph only", document.threads));
    lines
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MEGABYTE)
}

/// Columns as wide as their widest cell; numbers are right-aligned.
fn table<const N: usize>(rows: &[[String; N]]) -> Lines {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| shown_name(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut lines = Lines::default();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| match cell.parse::<f64>() {
            Ok(_) => format!("{cell:>width$}"),
            Err(_) => format!("{cell:<width$}"),
        });
        lines.add(cells.collect::<Vec<_>>().join("  "));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = [["a", "n"], ["longer", "1.5"], ["b", "10.5"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows).text(), "a       n\nlonger   1.5\nb       10.5");
    }
}

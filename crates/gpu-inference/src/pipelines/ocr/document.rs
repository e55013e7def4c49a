//! An input's output, made of what is read on its pages.

use gpu_tasks::WarningCode;
use image::RgbImage;

use super::stages::{Read, ReadLine};
use crate::input::picture::Picture;
use crate::output::{Basis, Line, Output, Page, PageSize, PictureBasis, Reading, TaskResult};

/// A page that is looked at smaller than this may have lines that are not seen …
const SCALE_DOUBTFUL: f32 = 0.5;
/// … unless all that are seen are higher than this on the detector's canvas: then the page has no small print, as far as is known.
const SEEN_HEIGHT_MIN: f32 = 12.0;
/// Lines that are lower, in pixels of the page, are often misread: their letters are some five pixels high.
const LINE_READABLE_MIN: u32 = 10;

pub(super) struct Document {
    page: Page,
    pages_total: usize,
    reading: Reading,
    /// Lines lower than this many pixels may not have been seen.
    unseen_below: f32,
}

impl Document {
    pub(super) fn of(picture: &Picture) -> Self {
        let size = |page: &RgbImage| PageSize { width: page.width(), height: page.height() };
        Self {
            page: Page { pages: picture.pages().iter().map(size).collect(), lines: Vec::new() },
            pages_total: picture.pages_total(),
            reading: Reading { tiles: 0, scale: f32::INFINITY, lines_small: 0, lines_unread: 0 },
            unseen_below: 0.0,
        }
    }

    /// Adds what was read on its page of this number.
    pub(super) fn add(&mut self, page: usize, read: Read, line_score_min: f32) {
        self.reading.tiles += read.tiles;
        self.reading.scale = self.reading.scale.min(read.scale);
        let lowest = read.lines.iter().map(|line| line.height).min();
        let is_low = lowest.is_none_or(|lowest| lowest as f32 * read.scale < SEEN_HEIGHT_MIN);
        if read.scale < SCALE_DOUBTFUL && is_low {
            self.unseen_below = self.unseen_below.max(SEEN_HEIGHT_MIN / read.scale);
        }
        for ReadLine { corners, height, text: (text, score) } in read.lines {
            if score < line_score_min || text.trim().is_empty() {
                self.reading.lines_unread += 1;
                continue;
            }
            self.reading.lines_small += usize::from(height < LINE_READABLE_MIN);
            self.page.lines.push(Line { text, score, corners, page });
        }
    }

    pub(super) fn output(self) -> Output {
        let Self { page, pages_total, reading, unseen_below } = self;
        let PageSize { width, height } = page.pages[0];
        let (pages, small) = (page.pages.len(), reading.lines_small);
        let basis = PictureBasis { pages, pages_total, width, height, reading: Some(reading) };
        let mut output = Output::from(TaskResult::Page(page));
        output.remarks.basis = Some(Basis::Picture(basis));
        if small > 0 {
            let message = format!("{small} of the lines are lower than {LINE_READABLE_MIN} pixels");
            output.remarks.warn(WarningCode::PictureLinesSmall, message);
        }
        if unseen_below > 0.0 {
            let message = format!(
                "the text was looked for in a smaller copy: lines lower than {unseen_below:.0} pixels may be missing"
            );
            output.remarks.warn(WarningCode::PictureShrunk, message);
        }
        output
    }
}

//! A part of a file as Symphonia reads it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::{Hint, Probe};
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::formats::{
    AdtsReader, CafReader, FlacReader, IsoMp4Reader, MkvReader, OggReader, WavReader,
};

/// Most that is read before the sound begins: tags with pictures.
const HEADER_BYTES_MAX: u64 = 32 << 20;

/// A part of a file behind a header of its own, of which only so much is read before the sound begins: tags may hold anything.
pub(super) struct FilePart {
    header: Vec<u8>,
    file: File,
    data: Range<u64>,
    /// In header and data together.
    at: u64,
    bytes_left: Arc<AtomicU64>,
}

impl FilePart {
    pub(super) fn new(mut file: File, header: Vec<u8>, data: Range<u64>) -> io::Result<Self> {
        file.seek(SeekFrom::Start(data.start))?;
        let bytes_left = Arc::new(AtomicU64::new(HEADER_BYTES_MAX));
        Ok(Self { header, file, data, at: 0, bytes_left })
    }

    /// A reader of it, which begins with `head` unless there is a header.
    pub(super) fn reader(self, head: &[u8]) -> Result<Box<dyn FormatReader>, SymphoniaError> {
        let (bytes_left, readers) =
            (Arc::clone(&self.bytes_left), readers(!self.header.is_empty(), head));
        let stream = MediaSourceStream::new(Box::new(self), Default::default());
        // No hint: the content decides, the extension may be anything.
        let (format, tags) = (FormatOptions::default(), MetadataOptions::default());
        let reader = readers.probe(&Hint::new(), stream, format, tags)?;
        bytes_left.store(u64::MAX, Ordering::Relaxed);
        Ok(reader)
    }

    fn length(&self) -> u64 {
        self.header.len() as u64 + self.data.end.saturating_sub(self.data.start)
    }
}

impl Read for FilePart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = usize::try_from(self.at).ok().and_then(|at| self.header.get(at..));
        let read = match header {
            Some(mut rest) if !rest.is_empty() => rest.read(buffer)?,
            _ => {
                let left = self.length().saturating_sub(self.at);
                (&mut self.file).take(left).read(buffer)?
            }
        };
        self.at += read as u64;
        let left = self.bytes_left.load(Ordering::Relaxed);
        let left = left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("its header has more than {HEADER_BYTES_MAX} bytes"))
        })?;
        self.bytes_left.store(left, Ordering::Relaxed);
        Ok(read)
    }
}

impl Seek for FilePart {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let outside = || io::Error::new(ErrorKind::InvalidInput, "a place before the beginning");
        let at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.length().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        let at = at.ok_or_else(outside)?;
        // A place behind the end is the file's claim: the system refuses the largest.
        let within = at.min(self.length()).saturating_sub(self.header.len() as u64);
        self.file.seek(SeekFrom::Start(self.data.start.saturating_add(within)))?;
        self.at = at;
        Ok(at)
    }
}

impl MediaSource for FilePart {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length())
    }
}

/// What may be found. WAV is looked for only behind a header that was made here, and AAC where the file begins with it: the readers would
/// find both within files of any kind. MP3 has another reader.
fn readers(has_header: bool, head: &[u8]) -> Probe {
    let mut probe = Probe::new();
    if has_header {
        probe.register_format::<WavReader<'_>>();
    }
    if head.starts_with(b"ID3") || matches!(head, [0xff, kind, ..] if kind & 0xf6 == 0xf0) {
        probe.register_format::<AdtsReader<'_>>();
    }
    probe.register_format::<CafReader<'_>>();
    probe.register_format::<FlacReader<'_>>();
    if head.get(4..8) == Some(b"ftyp") {
        probe.register_format::<IsoMp4Reader<'_>>();
    }
    probe.register_format::<MkvReader<'_>>();
    probe.register_format::<OggReader<'_>>();
    probe
}

//! What a file is that a task cannot take, told by its first bytes: for the error's words and its hint.
//!
//! Of recordings and pictures it decides nothing: a decoder has refused the file before this is asked. What is not in the table has no name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::text;

/// As much as is read of a file: a tar archive says what it is at 257.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// With its article, e.g. `a PDF document`.
    pub name: &'static str,
    pub(super) family: Family,
}

/// What can be done with files of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Recording,
    Video,
    Picture,
    Pdf,
    /// Documents of office programs, and books.
    Document,
    /// One or more files packed.
    Archive,
    Text,
    /// Weights, or arrays in a format that is not read.
    Numbers,
    Model,
    Other,
}

use Family::{Archive, Document, Model, Numbers, Other, Pdf, Picture, Recording, Video};

/// A place in the file, the bytes there, and what they tell. The first that fits counts.
const SIGNATURES: &[(usize, &[u8], &str, Family)] = &[
    (0, b"%PDF-", "a PDF document", Pdf),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", Picture),
    (0, b"\xff\xd8\xff", "a JPEG picture", Picture),
    (0, b"GIF8", "a GIF picture", Picture),
    (0, b"II*\0", "a TIFF picture", Picture),
    (0, b"MM\0*", "a TIFF picture", Picture),
    (0, b"II+\0", "a BigTIFF picture", Picture),
    (0, b"MM\0+", "a BigTIFF picture", Picture),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", Picture),
    (0, b"\xff\x0a", "a JPEG XL picture", Picture),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", Picture),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", Picture),
    (0, b"8BPS", "a Photoshop picture", Picture),
    (0, b"\0\0\x01\0", "an icon (ICO)", Picture),
    (0, b"AT&TFORM", "a DjVu document", Document),
    (0, b"%!PS", "a PostScript document", Document),
    (0, b"fLaC", "a FLAC recording", Recording),
    (0, b"ID3", "an MP3 recording", Recording),
    (0, b"\xff\xfb", "an MP3 recording", Recording),
    (0, b"\xff\xf3", "an MP3 recording", Recording),
    (0, b"\xff\xf1", "an AAC recording", Recording),
    (0, b"\xff\xf9", "an AAC recording", Recording),
    (0, b"OggS", "an Ogg recording", Recording),
    (0, b"#!AMR", "an AMR recording", Recording),
    (0, b"caff", "a CAF recording", Recording),
    (0, b".snd", "an AU recording", Recording),
    (0, b"MThd", "a MIDI file (notes, no sound)", Other),
    (0, b"MAC ", "a Monkey's Audio recording", Recording),
    (0, b"wvpk", "a WavPack recording", Recording),
    (0, b"RF64", "an RF64 recording (a WAV beyond 4 GB)", Recording),
    (0, b"RIFX", "a RIFX recording (a big-endian WAV)", Recording),
    (0, b"riff.\x91\xcf\x11", "a Wave64 recording", Recording),
    (0, b"\x0b\x77", "an AC-3 recording", Recording),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media recording (WMA, WMV)", Video),
    (0, b"FLV\x01", "a Flash video", Video),
    (0, b"\0\0\x01\xba", "an MPEG video", Video),
    (0, b"\0\0\x01\xb3", "an MPEG video", Video),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (doc, xls, ppt)", Document),
    (0, b"{\\rtf", "an RTF document", Document),
    (0, b"PAR1", "a Parquet table", Numbers),
    (0, b"ARROW1", "an Arrow table", Numbers),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", Numbers),
    (0, b"\x93NUMPY", "a NumPy array", Numbers),
    (0, b"GGUF", "a model in GGUF", Model),
    (0, b"\x1f\x8b", "a gzip archive", Archive),
    (0, b"BZh", "a bzip2 archive", Archive),
    (0, b"\xfd7zXZ\0", "an xz archive", Archive),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", Archive),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", Archive),
    (0, b"Rar!\x1a\x07", "a RAR archive", Archive),
    (257, b"ustar", "a tar archive", Archive),
    (0, b"SQLite format 3\0", "an SQLite database", Other),
    (0, b"\x7fELF", "a program for Linux", Other),
    (0, b"MZ", "a program for Windows", Other),
    (0, b"wOF", "a font", Other),
    (0, b"\x80\x02", "a Python pickle", Numbers),
    (0, b"\x80\x04\x95", "a Python pickle", Numbers),
    (0, b"\x80\x05\x95", "a Python pickle", Numbers),
    // Short, so last of those at the beginning.
    (0, b"BM", "a BMP picture", Picture),
];

/// What a RIFF or FORM container holds, by the name behind its length.
const CONTAINERS: &[(&[u8], &str, Family)] = &[
    (b"WAVE", "a WAV recording", Recording),
    (b"WEBP", "a WebP picture", Picture),
    (b"AVI ", "an AVI video", Video),
    (b"RMID", "a MIDI file (notes, no sound)", Other),
    (b"AIFF", "an AIFF recording", Recording),
    (b"AIFC", "an AIFF-C recording", Recording),
];

/// What an ISO media file (`ftyp`) is, by its brand.
const BRANDS: &[(&[u8], &str, Family)] = &[
    (b"heic", "a HEIC picture", Picture),
    (b"heix", "a HEIC picture", Picture),
    (b"hevc", "a HEIC picture", Picture),
    (b"heim", "a HEIC picture", Picture),
    (b"heis", "a HEIC picture", Picture),
    (b"mif1", "a HEIF picture", Picture),
    (b"msf1", "a HEIF picture", Picture),
    (b"avif", "an AVIF picture", Picture),
    (b"avis", "an AVIF picture", Picture),
    (b"crx ", "a Canon raw picture (CR3)", Picture),
    (b"M4A ", "an M4A recording", Recording),
    (b"M4B ", "an M4A recording", Recording),
    (b"M4P ", "an M4A recording", Recording),
    (b"F4A ", "an M4A recording", Recording),
    (b"qt  ", "a QuickTime video", Video),
    (b"3gp", "a 3GP video or recording", Video),
    (b"3g2", "a 3GP video or recording", Video),
];

/// What a zip archive is, by the name or content of its first entries.
const ZIPPED: &[(&[u8], &str, Family)] = &[
    (b"word/", "a Word document (docx)", Document),
    (b"xl/", "an Excel workbook (xlsx)", Document),
    (b"ppt/", "a PowerPoint presentation (pptx)", Document),
    (b"[Content_Types].xml", "an Office document (docx, xlsx, pptx)", Document),
    (b"application/vnd.oasis.opendocument", "an OpenDocument file (odt, ods, odp)", Document),
    (b"application/epub+zip", "an EPUB book", Document),
    (b"META-INF/", "a Java archive", Archive),
    (b"/data.pkl", "a PyTorch checkpoint", Model),
    (b".npy", "an archive of NumPy arrays (npz)", Numbers),
];

/// What the file is, if it can be read and is known.
pub(super) fn of_file(path: &Path) -> Option<FileKind> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD_BYTES_MAX as u64).read_to_end(&mut head).ok()?;
    of_bytes(&head)
}

/// Whether a file is of a kind that has letters in it, and is not a text: a PDF or RTF document, an SVG drawing.
pub(crate) fn is_no_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    of_bytes(head).is_some_and(|kind| kind.family != Family::Text)
}

/// What a file with this beginning is.
pub(super) fn of_bytes(head: &[u8]) -> Option<FileKind> {
    let text = text::beginning(head);
    // "BMW" is not a picture: the marks of most binary files are also words, and what follows them is not a text.
    let is_plain = text.as_ref().is_some_and(|text| text.encoding == text::Encoding::Utf8);
    let marked = |family: Family| !is_plain || matches!(family, Pdf | Document);
    let known = container(head).or_else(|| signature(head));
    let known = known.filter(|&(_, family)| marked(family));
    known.or_else(|| text.as_ref().map(of_text)).map(|(name, family)| FileKind { name, family })
}

/// Kinds whose name stands behind a length or in the first entry.
fn container(head: &[u8]) -> Option<(&'static str, Family)> {
    let named = |table: &[(&[u8], &'static str, Family)], at: &[u8]| {
        let found = table.iter().find(|(name, ..)| at.starts_with(name));
        found.map(|&(_, name, family)| (name, family))
    };
    let at = |place: usize| head.get(place..).unwrap_or_default();
    if head.starts_with(b"RIFF") || head.starts_with(b"FORM") {
        return named(CONTAINERS, at(8));
    }
    if at(4).starts_with(b"ftyp") {
        return named(BRANDS, at(8)).or(Some(("an MP4 video or recording", Video)));
    }
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        let web = memchr::memmem::find(&head[..head.len().min(64)], b"webm").is_some();
        let name = if web { "a WebM video or recording" } else { "a Matroska video or recording" };
        return Some((name, Video));
    }
    if head.starts_with(b"PK\x03\x04") {
        let within = |(name, ..): &&(&[u8], _, _)| memchr::memmem::find(head, name).is_some();
        let known = ZIPPED.iter().find(within);
        return Some(known.map_or(("a zip archive", Archive), |&(_, name, family)| (name, family)));
    }
    let transport = |place: usize| head.get(place) == Some(&b'G');
    [0, 188, 376].into_iter().all(transport).then_some(("an MPEG transport stream", Video))
}

fn signature(head: &[u8]) -> Option<(&'static str, Family)> {
    let fits = |&&(place, bytes, ..): &&(usize, &[u8], _, _)| {
        head.get(place..).is_some_and(|rest| rest.starts_with(bytes))
    };
    SIGNATURES.iter().find(fits).map(|&(_, _, name, family)| (name, family))
}

/// Texts by their encoding, and by what they begin with.
fn of_text(found: &text::Decoded) -> (&'static str, Family) {
    let lower = found.text.trim_start().to_ascii_lowercase();
    let begins = |start: &str| lower.starts_with(start);
    if begins("<svg") || (begins("<?xml") && lower.contains("<svg")) {
        ("an SVG drawing", Picture)
    } else if begins("<!doctype html") || begins("<html") {
        ("an HTML page", Family::Text)
    } else {
        (found.encoding.text_name(), Family::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_files_are_known_by_their_first_bytes() {
        let zip = |name: &str| [b"PK\x03\x04".as_slice(), &[0; 26], name.as_bytes()].concat();
        let utf_16 = "Grüße aus Köln".encode_utf16().flat_map(u16::to_le_bytes);
        let utf_16 = [vec![0xff, 0xfe], utf_16.collect()].concat();
        for (head, name) in [
            (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01webm".to_vec(), "a WebM video or recording"),
            (b"\0\0\0\x18ftypheic\0\0".to_vec(), "a HEIC picture"),
            (b"\0\0\0\x1cftypM4A \0\0".to_vec(), "an M4A recording"),
            (b"\0\0\0\x1cftypisom\0\0".to_vec(), "an MP4 video or recording"),
            (b"%PDF-1.7\n".to_vec(), "a PDF document"),
            (zip("word/document.xml"), "a Word document (docx)"),
            (zip("photo.jpg"), "a zip archive"),
            (b"RIFF\x10\0\0\0WEBPVP8 ".to_vec(), "a WebP picture"),
            (b"\x1f\x8b\x08\0".to_vec(), "a gzip archive"),
            (b"<?xml version=\"1.0\"?>\n<svg/>".to_vec(), "an SVG drawing"),
            (b"plain words".to_vec(), "a text"),
            (b"BMW, caffeine and GIF89a".to_vec(), "a text"),
            (utf_16, "a text in UTF-16"),
            (b"caf\xe9 au lait".to_vec(), "a text in an 8-bit encoding such as Latin-1"),
        ] {
            assert_eq!(of_bytes(&head).map(|kind| kind.name), Some(name));
        }
        assert_eq!(of_bytes(&[7, 0, 1, 200, 3, 0, 0]), None);
    }
}

//! Files made by hand, as no program would write them.

use std::io::Write;

/// An archive of files that are not compressed.
pub(crate) fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        archive.start_file(*name, stored).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

pub(crate) fn png_chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let sum = crc32(&[kind, content].concat()).to_be_bytes();
    [&length[..], kind, content, &sum].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

/// Zeros in zlib's format: one zero, then copies of 258 of what came before, in the fixed code of deflate.
pub(crate) fn deflated_zeros(bytes: usize) -> Vec<u8> {
    let mut packed = vec![0x78, 0x01];
    let (mut waiting, mut bits) = (0_u32, 0);
    let mut put = |value: u32, width: u32| {
        waiting |= value << bits;
        bits += width;
        while bits >= 8 {
            packed.push(waiting.to_le_bytes()[0]);
            (waiting, bits) = (waiting >> 8, bits - 8);
        }
    };
    // The last block, of the fixed code; then a zero, whose code's bits come from the highest on.
    put(0b011, 3);
    put(0b0000_1100, 8);
    for _ in 0..bytes / 258 {
        put(0b1010_0011, 8);
        put(0, 5);
    }
    put(0, 7);
    put(0, 7);
    packed
}

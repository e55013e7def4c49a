//! Formats that no reader here knows: converted by ffmpeg, where it is installed.
//!
//! It is run as a child for a limited time, on this one file: it may open no other, and the formats that name other files are not among those it may
//! read.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::cancel::Cancel;
use crate::input::error::InputError;
use crate::preprocess::child::{self, ChildError};
use crate::text;

/// The program, looked up in the search path.
const PROGRAM: &str = "ffmpeg";
/// Longest time for a recording: hours of sound take a minute.
const TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// What it may read: recordings and films in one file.
const FORMATS: &str = "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,\
    rm,tak,tta,voc,w64,wav,wv,xwma";
/// As much as is looked at: three packets of a transport stream.
const HEAD_BYTES: u64 = 512;
/// The rate of its output: the highest that a model takes.
const RATE_HZ: &str = "48000";

/// What the recording at `start` is by its first bytes, where no reader here knows its kind.
pub(super) fn known_kind(file: &mut File, start: u64) -> io::Result<Option<&'static str>> {
    const KINDS: [(usize, &[u8], &str); 19] = [
        (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMA or WMV file"),
        (0, b"#!AMR", "an AMR recording"),
        (0, b"\x0b\x77", "an AC-3 recording"),
        (0, b"\x7f\xfe\x80\x01", "a DTS recording"),
        (0, b"FLV\x01", "a Flash video"),
        (0, b"\0\0\x01\xba", "an MPEG film"),
        (0, b"wvpk", "a WavPack recording"),
        (0, b"MAC ", "a Monkey's Audio recording"),
        (0, b"TTA1", "a True Audio recording"),
        (0, b"MPCK", "a Musepack recording"),
        (0, b"MP+", "a Musepack recording"),
        (0, b".RMF", "a RealMedia file"),
        (0, b"DSD ", "a DSD recording"),
        (0, b"FRM8", "a DSD recording"),
        (0, b"tBaK", "a TAK recording"),
        (0, b"Creative Voice File", "a Creative Voice recording"),
        (8, b"AVI ", "an AVI film"),
        (8, b"XWMA", "an xWMA recording"),
        (28, b"Speex   ", "a Speex recording"),
    ];
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    let is_at =
        |at: usize, magic: &[u8]| head.get(at..).is_some_and(|bytes| bytes.starts_with(magic));
    // Packets of 188 bytes, each with a mark; on disks of cameras behind a time of four bytes.
    let is_transport =
        |begin: usize, bytes: usize| (0..3).all(|of| is_at(begin + of * bytes, b"G"));
    if is_transport(0, 188) || is_transport(4, 192) {
        return Ok(Some("an MPEG transport stream"));
    }
    Ok(KINDS.iter().find(|(at, magic, _)| is_at(*at, magic)).map(|(.., name)| *name))
}

/// The recording as a WAV file. `problem` is why no reader here can read it.
pub(super) fn convert(
    path: &Path,
    problem: String,
    seconds_max: u32,
    cancel: &Cancel,
) -> Result<NamedTempFile, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let converted = tempfile::Builder::new().suffix(".wav").tempfile().map_err(unreadable)?;
    let mut input = OsString::from("file:");
    input.push(path);
    // One second more than is allowed shows that it is too long.
    let seconds = (u64::from(seconds_max) + 1).to_string();
    let mut command = Command::new(PROGRAM);
    command
        .args(["-nostdin", "-v", "error", "-threads", "1", "-protocol_whitelist", "file"])
        .args(["-format_whitelist", FORMATS, "-i"])
        .arg(input)
        .args(["-map", "0:a:0", "-t", &seconds, "-ac", "1", "-ar", RATE_HZ])
        .args(["-c:a", "pcm_s16le", "-map_metadata", "-1", "-f", "wav", "-y"])
        .arg(converted.path());
    match child::run(&mut command, "", TIME_MAX, cancel) {
        Ok(said) if said.success => Ok(converted),
        Ok(said) => {
            let said = String::from_utf8_lossy(&said.stderr);
            let said = said.lines().next().unwrap_or("nothing").to_owned();
            let problem = format!("{problem}, and ffmpeg says: {}", text::cut(said));
            Err(InputError::Unsupported { path: path.to_owned(), problem })
        }
        Err(ChildError::Cancelled(_)) => Err(InputError::Cancelled),
        Err(ChildError::Start(_)) => {
            Err(InputError::NeedsProgram { path: path.to_owned(), problem, program: PROGRAM })
        }
        Err(error) => {
            let problem = format!("{problem}, and ffmpeg failed: {}", text::said(&error));
            Err(InputError::Unsupported { path: path.to_owned(), problem })
        }
    }
}

/// The version of ffmpeg, if it is installed.
#[must_use]
pub fn ffmpeg_version() -> Option<String> {
    let said = Command::new(PROGRAM).arg("-version").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Some(said.split_whitespace().nth(2)?.to_owned())
}

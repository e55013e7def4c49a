//! The header of a JPEG's frame: its size, its components, and whether the decoder can read such a one.

use crate::input::picture::Problem;
use crate::size::Size;

/// The kinds of frames that are read: baseline, extended and progressive, each in Huffman's code.
const BASELINE: u8 = 0xc0;
const EXTENDED: u8 = 0xc1;
const PROGRESSIVE: u8 = 0xc2;
/// Bits of a sample.
const PRECISION: u8 = 8;
/// A block's side in samples.
const BLOCK: u32 = 8;

pub(super) struct Frame {
    pub(super) size: Size,
    pub(super) progressive: bool,
    pub(super) components: Vec<Component>,
    /// Units of the picture, each with all components.
    pub(super) units: Size,
}

pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks of a unit.
    pub(super) across: u32,
    pub(super) down: u32,
    /// Blocks of the component alone.
    pub(super) blocks: Size,
}

/// Whether a marker begins a frame of any kind.
pub(super) fn is_frame(marker: u8) -> bool {
    const HUFFMAN_TABLES: u8 = 0xc4;
    const EXTENSION: u8 = 0xc8;
    const ARITHMETIC_TABLES: u8 = 0xcc;
    (BASELINE..=0xcf).contains(&marker)
        && !matches!(marker, HUFFMAN_TABLES | EXTENSION | ARITHMETIC_TABLES)
}

impl Frame {
    pub(super) fn parse(marker: u8, content: &[u8]) -> Result<Self, Problem> {
        check_kind(marker)?;
        let [precision, height_0, height_1, width_0, width_1, count, ref rest @ ..] = *content
        else {
            return Err(Problem::damaged("its header is too short"));
        };
        if precision != PRECISION {
            return Err(Problem::Unsupported(format!("a JPEG with {precision} bits a sample")));
        }
        let height = u32::from(u16::from_be_bytes([height_0, height_1]));
        let width = u32::from(u16::from_be_bytes([width_0, width_1]));
        let (size, count) = (Size { width, height }, usize::from(count));
        if !matches!(count, 1 | 3 | 4) {
            return Err(Problem::Unsupported(format!("a JPEG of {count} components")));
        }
        let described = rest.get(..3 * count);
        let described = described.ok_or(Problem::damaged("its header is too short"))?;
        let sampled: Vec<_> = described.chunks_exact(3).map(|one| (one[0], one[1])).collect();
        Self::sampled(size, marker == PROGRESSIVE, &sampled)
    }

    fn sampled(size: Size, progressive: bool, sampled: &[(u8, u8)]) -> Result<Self, Problem> {
        let factors = |of: u8| (u32::from(of >> 4), u32::from(of & 0xf));
        let (most_across, most_down) = factors(sampled[0].1);
        for &(_, of) in sampled {
            let (across, down) = factors(of);
            if ![across, down].iter().all(|factor| matches!(factor, 1 | 2 | 4)) {
                return Err(Problem::Unsupported(format!("a JPEG sampled {across} x {down}")));
            }
            if across > most_across || down > most_down {
                let problem = "a JPEG whose colours are sampled more finely than its brightness";
                return Err(Problem::unsupported(problem));
            }
        }
        // A single component has units of one block, whatever its factors are.
        let alone = sampled.len() == 1;
        let (most_across, most_down) = if alone { (1, 1) } else { (most_across, most_down) };
        let component = |&(id, of): &(u8, u8)| {
            let (across, down) = if alone { (1, 1) } else { factors(of) };
            let blocks = |side: u32, own: u32, most: u32| (side * own).div_ceil(BLOCK * most);
            let width = blocks(size.width, across, most_across);
            let height = blocks(size.height, down, most_down);
            Component { id, across, down, blocks: Size { width, height } }
        };
        let units = Size {
            width: size.width.div_ceil(BLOCK * most_across),
            height: size.height.div_ceil(BLOCK * most_down),
        };
        Ok(Self { size, progressive, components: sampled.iter().map(component).collect(), units })
    }
}

fn check_kind(marker: u8) -> Result<(), Problem> {
    let kind = match marker {
        BASELINE | EXTENDED | PROGRESSIVE => return Ok(()),
        0xc9..=0xcb => "a JPEG in arithmetic code",
        0xc3 => "a lossless JPEG",
        _ => "a hierarchical JPEG",
    };
    Err(Problem::unsupported(kind))
}

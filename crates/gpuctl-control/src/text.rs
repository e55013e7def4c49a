//! Texts that several crates write alike: an error with its causes, and the digits of a digest.

use std::error::Error;
use std::fmt::Write;

/// An error and all its causes on one line, the outermost first: `cannot read a.toml: permission denied`.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

/// The causes of an error, without the error itself, the outermost first.
#[must_use]
pub fn causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |&cause| cause.source())
        .map(ToString::to_string)
        .collect()
}

/// Bytes as lower-case hexadecimal digits, two for each.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use crate::ports::{PortError, PortErrorClass};

    use super::*;

    #[test]
    fn an_error_is_told_with_every_cause() {
        let error = |what: &str| PortError::new(PortErrorClass::Other, what);
        let chain = error("outer").because(error("middle").because(error("inner")));
        assert_eq!(with_causes(&chain), "outer: middle: inner");
        assert_eq!(causes(&chain), ["middle", "inner"]);
        assert_eq!(with_causes(&error("alone")), "alone");
    }

    #[test]
    fn every_byte_has_two_digits() {
        assert_eq!(hexadecimal(&[0, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }
}

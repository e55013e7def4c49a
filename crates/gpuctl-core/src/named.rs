//! Enums whose kinds have a name for the command line and documents, and a sentence that says what each is.

/// Declares such an enum, with `ALL`, `name` and `sentence`; the sentences are its documentation, too.
#[macro_export]
macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($kind:ident $name:literal $sentence:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type {
            $(#[doc = $sentence] $kind,)*
        }

        impl $type {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name on the command line and in documents.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it is, as a sentence.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$kind => $sentence,)* }
            }
        }
    };
}

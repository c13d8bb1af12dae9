//! Enums whose variants have names.

/// Declares an enum with a name for each variant: the value in labels, in JSON and in the state file.
macro_rules! named_enum {
    ($(#[$doc:meta])* $vis:vis enum $enum:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)*
    }) => {
        $(#[$doc])*
        $vis enum $enum {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $enum {
            /// Every variant, in the order of their declaration.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name: the value in labels, in JSON and in the state file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The variant with this name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.as_str() == name)
            }
        }
    };
}

pub(crate) use named_enum;

//! Declaring the metric families that the `prometheus` crate keeps.

use prometheus::Registry;
use prometheus::core::Collector;

/// Declares a struct of metric families, each in one place: its field, type, labels, buckets, name and HELP text.
/// `register` makes them and registers them.
macro_rules! families {
    ($(#[$doc:meta])* $vis:vis struct $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ident $([$($label:literal),*])? $(in $buckets:ident)?
            = $metric:literal, $help:literal;)*
    }) => {
        $(#[$doc])*
        $vis struct $name {
            $($(#[$field_doc])* $field: $type,)*
        }

        impl $name {
            $vis fn register(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
                use $crate::exposition::metrics::declare::{families, registered};
                Ok(Self {
                    $($field: registered(
                        registry,
                        families!(@new $type, families!(@opts $metric, $help $(, $buckets)?) $(, [$($label),*])?),
                    )?,)*
                })
            }
        }
    };
    (@opts $metric:literal, $help:literal) => { prometheus::Opts::new($metric, $help) };
    (@opts $metric:literal, $help:literal, $buckets:ident) => {
        prometheus::HistogramOpts::new($metric, $help).buckets($buckets.to_vec())
    };
    (@new $type:ident, $opts:expr) => { $type::with_opts($opts) };
    (@new $type:ident, $opts:expr, [$($label:literal),*]) => { $type::new($opts, &[$($label),*]) };
}

pub(super) use families;

pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let family = family?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

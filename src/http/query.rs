//! The parameters of a query.

use std::borrow::Cow;

use url::form_urlencoded;

/// Calls `set` with the name and the value of each parameter.
///
/// # Errors
/// The first error of `set`, or that a parameter is given twice: what is wrong, for the user.
pub(super) fn parse_query<'q>(
    query: Option<&'q str>,
    mut set: impl FnMut(&str, Cow<'q, str>) -> Result<(), String>,
) -> Result<(), String> {
    let mut given = Vec::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        set(&name, value)?;
        if given.contains(&name) {
            return Err(format!("{name}: is given a second time: keep one of them"));
        }
        given.push(name);
    }
    Ok(())
}

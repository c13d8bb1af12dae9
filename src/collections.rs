//! Maps and sets of any type.

/// Collects into a map or a set, one after the other. `Iterator::collect` sorts first, which is faster if there are many,
/// and a sort takes 6 KB of the program for each type.
pub(crate) fn inserted<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}

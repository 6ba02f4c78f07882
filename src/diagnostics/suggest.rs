//! "Did you mean …?"

/// The candidate closest to `name`, if one is close enough to have been meant.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_lowercase().replace('_', "-");
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().min(folded.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn finds_the_typo_and_not_the_stranger() {
        let names = ["suite", "mirrors", "components", "keyring-files"];
        assert_eq!(suggest("suit", names), Some("suite"));
        assert_eq!(suggest("keyring_files", names), Some("keyring-files"));
        assert_eq!(suggest("frobnicate", names), None);
    }
}

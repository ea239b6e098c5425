//! Which slot each route of a new configuration has. Pure.

use crate::admin::Difference;
use crate::config::Route;

/// As many as a session can name.
const SLOTS_MAX: usize = 1 << 16;

/// Routes by slot.
#[derive(Debug)]
pub(super) struct Placed {
    /// Those that take sessions and those that did.
    pub routes: Vec<Route>,
    /// The slots that take sessions, in the order of the file.
    pub live: Vec<usize>,
    /// Slots whose routes take sessions and did before, just so.
    pub kept: Vec<usize>,
}

/// Puts `routes` into slots after those of `before`, of which `live` took sessions. `is_vacant` says of a slot that took
/// none whether it has none left.
///
/// A route keeps its slot, or gets one back that it had when it was just so; else one that nobody uses any more of
/// its own name, so that its counters go on; else a new one. `None`: there are no more.
pub(super) fn place(
    before: &[Route],
    live: &[usize],
    routes: Vec<Route>,
    is_vacant: impl Fn(usize) -> bool,
) -> Option<Placed> {
    let mut placed = Placed { routes: before.to_vec(), live: Vec::new(), kept: Vec::new() };
    let known: Vec<Option<usize>> = routes
        .iter()
        .map(|route| {
            let is_same = |slot: &usize| is_unchanged(&before[*slot], route);
            live.iter().copied().find(is_same).or_else(|| (0..before.len()).find(is_same))
        })
        .collect();
    for (route, same) in routes.into_iter().zip(&known) {
        let is_free = |slot: &usize| {
            let taken = live.contains(slot) || placed.live.contains(slot);
            !taken && !known.contains(&Some(*slot)) && is_vacant(*slot)
        };
        let namesakes = (0..before.len()).filter(|slot| before[*slot].name == route.name);
        let slot = same.or_else(|| namesakes.into_iter().find(is_free));
        let slot = slot.unwrap_or(placed.routes.len());
        if same.is_some() && live.contains(&slot) {
            placed.kept.push(slot);
        }
        placed.live.push(slot);
        match placed.routes.get_mut(slot) {
            Some(there) => *there = route,
            None => placed.routes.push(route),
        }
    }
    (placed.routes.len() <= SLOTS_MAX).then_some(placed)
}

/// Whether a route is what it was. Where its names lead to at the moment is not its doing.
fn is_unchanged(before: &Route, after: &Route) -> bool {
    // Nor is what would become of its sessions.
    let mut after = Route { on_change: before.on_change, ..after.clone() };
    for (new, old) in after.to.iter_mut().zip(&before.to) {
        if new.text == old.text && new.name().is_some() {
            new.target = old.target.clone();
        }
    }
    *before == after
}

impl Placed {
    /// What is different from before.
    pub fn difference(&self, before: &[Route], live: &[usize]) -> Difference {
        let was = |name: &str| live.iter().any(|&slot| before[slot].name == name);
        let is = |name: &str| self.live.iter().any(|&slot| self.routes[slot].name == name);
        let mut difference = Difference::default();
        for slot in self.live.iter().filter(|slot| !self.kept.contains(slot)) {
            let name = &self.routes[*slot].name;
            let list = if was(name) { &mut difference.changed } else { &mut difference.added };
            list.push(name.clone());
        }
        let gone = live.iter().map(|&slot| &before[slot].name).filter(|name| !is(name));
        difference.removed = gone.cloned().collect();
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml;

    fn routes(text: &str) -> Vec<Route> {
        from_toml(text, "x").expect("a good configuration").routes
    }

    fn route(name: &str, more: &str) -> String {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nto = [\"127.0.0.1:9\"]\n{more}\n"
        )
    }

    /// Slots after `before`, none of which is vacant unless it is named.
    fn after(before: &Placed, text: &str, vacant: &[usize]) -> Placed {
        let is_vacant = |slot| vacant.contains(&slot);
        place(&before.routes, &before.live, routes(text), is_vacant).expect("there is room")
    }

    fn first(text: &str) -> Placed {
        place(&[], &[], routes(text), |_| false).expect("there is room")
    }

    #[test]
    fn what_stays_as_it_is_keeps_its_slot_wherever_it_stands() {
        let (a, b, c) = (route("a", ""), route("b", ""), route("c", ""));
        let begun = first(&format!("{a}{b}{c}"));
        assert_eq!((&*begun.live, &*begun.kept), (&[0, 1, 2][..], &[][..]));
        let next = after(&begun, &format!("{c}{a}"), &[]);
        assert_eq!((&*next.live, &*next.kept), (&[2, 0][..], &[2, 0][..]));
        assert_eq!(next.routes.len(), 3, "b may have sessions");
        let difference = next.difference(&begun.routes, &begun.live);
        assert_eq!(difference, Difference { removed: vec!["b".into()], ..Difference::default() });
    }

    #[test]
    fn a_changed_route_gets_another_slot_and_its_old_one_back_with_what_it_was() {
        let begun = first(&route("a", ""));
        let changed = after(&begun, &route("a", "rekey = true"), &[]);
        assert_eq!((&*changed.live, &*changed.kept), (&[1][..], &[][..]));
        assert!(!changed.routes[0].rekey && changed.routes[1].rekey);
        let difference = changed.difference(&begun.routes, &begun.live);
        assert_eq!(difference, Difference { changed: vec!["a".into()], ..Difference::default() });
        let back = after(&changed, &route("a", ""), &[]);
        assert_eq!((&*back.live, back.routes.len()), (&[0][..], 2));
    }

    #[test]
    fn a_vacant_slot_is_used_again_by_its_own_name_alone() {
        let begun = first(&format!("{}{}", route("a", ""), route("b", "")));
        let changed = after(&begun, &route("a", "rekey = true"), &[]);
        assert_eq!(changed.live, [2]);
        // Both old slots have no sessions left.
        let text = format!("{}{}", route("a", "empty_host = true"), route("c", ""));
        let again = after(&changed, &text, &[0, 1]);
        assert_eq!((&*again.live, &*again.routes[0].name), (&[0, 3][..], "a"));
        let difference = again.difference(&changed.routes, &changed.live);
        assert_eq!((difference.added, difference.changed), (vec!["c".into()], vec!["a".into()]));
    }

    #[test]
    fn where_a_name_leads_to_is_no_change_and_what_it_is_called_is() {
        let named = |name: &str, last: u8| {
            let text = format!("[[route]]\nname = \"a\"\nto = [\"{name}:80\"]\n");
            let resolve = move |_: &str, port| Ok(vec![([127, 0, 0, last], port).into()]);
            crate::config::from_toml_with(&text, "x", &resolve).expect("good").routes.remove(0)
        };
        let before = named("app.test", 1);
        assert!(is_unchanged(&before, &named("app.test", 2)));
        assert!(!is_unchanged(&before, &named("other.test", 1)));
    }
}

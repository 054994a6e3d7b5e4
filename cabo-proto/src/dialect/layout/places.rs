//! Where everything stands in a message: what summaries and pictures of a layout show.

use super::{Code, Count, Item, Kind, Layout, Order, aligned};

/// An item, and where it stands.
#[derive(Clone, Debug)]
pub struct Place<'l> {
    /// What stands there.
    pub item: &'l Item,
    /// In how many groups it is.
    pub depth: usize,
    /// Its first byte, from the start of the message, or of the innermost group that it is in; `None` where what is
    /// before it decides.
    pub at: Option<usize>,
    /// Its bytes, for a group those of all its times; `None` where a message decides.
    pub size: Option<usize>,
    /// The field that counts it.
    pub counted_by: Option<&'l str>,
}

impl Layout {
    /// All items in order, each group before what is in it.
    pub fn places(&self) -> Vec<Place<'_>> {
        let mut walk = Walk { order: self.order, places: Vec::new() };
        walk.items(&mut vec![&self.items], Some(0));
        walk.places
    }
}

struct Walk<'l> {
    order: Order,
    places: Vec<Place<'l>>,
}

impl<'l> Walk<'l> {
    /// Goes through the innermost of the open groups, which begins at that byte of the message.
    fn items(&mut self, open: &mut Vec<&'l [Item]>, start: Option<usize>) {
        let items: &'l [Item] = open.last().copied().unwrap_or_default();
        // Without a known start nothing is aligned, and what is in the group is counted from its own start.
        let base = start.unwrap_or(0);
        let mut next = Some(base);
        for item in items {
            let begin = next.map(|at| match item.kind.aligns_as() {
                Some(code) => aligned(at, code, self.order),
                None => at,
            });
            next = next.and_then(|at| item.kind.end(at, self.order));
            let size = begin.zip(next).map(|(begin, end)| end.saturating_sub(begin));
            let size = size.or_else(|| item.kind.end(0, self.order));
            self.places.push(Place {
                item,
                depth: open.len().saturating_sub(1),
                at: begin.map(|at| at - base),
                size,
                counted_by: counted_by(item, open),
            });
            if let Kind::Group(_, inner) | Kind::Block(_, inner) = &item.kind {
                open.push(inner);
                self.items(open, begin);
                open.pop();
            }
        }
    }
}

impl Kind {
    fn aligns_as(&self) -> Option<Code> {
        match self {
            Self::Align(code) | Self::One(code) | Self::Several(code, _) => Some(*code),
            Self::Pad(_) | Self::Text(_) | Self::Pascal(_) | Self::Group(..) | Self::Block(..) => {
                None
            }
        }
    }
}

fn counted_by<'l>(item: &Item, open: &[&'l [Item]]) -> Option<&'l str> {
    match &item.kind {
        Kind::Text(Count::By(by))
        | Kind::Group(Count::By(by), _)
        | Kind::Block(Count::By(by), _) => {
            let group = open.iter().rev().nth(by.up)?;
            group.get(by.item).map(|item| item.name.as_str())
        }
        Kind::Pad(_)
        | Kind::Align(_)
        | Kind::One(_)
        | Kind::Several(..)
        | Kind::Text(_)
        | Kind::Pascal(_)
        | Kind::Group(..)
        | Kind::Block(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(layout: &str) -> String {
        let layout = Layout::parse(layout).expect("a layout");
        let number =
            |number: Option<usize>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let one = |place: &Place<'_>| {
            let by = place.counted_by.map(|by| format!(" by {by}")).unwrap_or_default();
            let (at, size) = (number(place.at), number(place.size));
            format!("{}{}:{at}+{size}{by}", ">".repeat(place.depth), place.item.name)
        };
        layout.places().iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// D-1.2, D-1.4: sizes by code and order, and what is aligned begins where it is aligned.
    #[test]
    fn every_item_is_where_its_bytes_are() {
        assert_eq!(shown("!B:a L:b 20s:c"), "a:0+1 b:1+4 c:5+20");
        assert_eq!(shown("@B:a L:b 2x h:c"), "a:0+1 b:8+8 :16+2 c:18+2");
        assert_eq!(shown("!B:n {n}s:t L:end"), "n:0+1 t:1+? by n end:?+4");
    }

    /// D-1.9: what is in a group is counted from the start of the group.
    #[test]
    fn groups_stand_before_what_is_in_them() {
        let package = "<i:op i:size {size}s(i:len {len}s:value):values";
        let wanted = "op:0+4 size:4+4 values:8+? by size >len:0+4 >value:4+? by len";
        assert_eq!(shown(package), wanted);
        assert_eq!(shown("@B:a 2(B:x L:y):g"), "a:0+1 g:1+31 >x:0+1 >y:7+8");
    }
}

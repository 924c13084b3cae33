//! Encoders: each value of the protocol as minicbor writes it, and how long it is.

use core::time::Duration;

use minicbor::{
    CborLen, Encode, Encoder,
    bytes::ByteSlice,
    encode::{self, Write, write::Cursor as Position},
};

use crate::protocol::{
    MAX_LIST, Offer, PeerId,
    codec::{NoRoom, PEER_ID_LEN, peer_to_bytes},
};

/// Writes a message to the front of `buffer`. Returns the written bytes.
pub(in super::super) fn write<'b>(
    message: &impl Encode<()>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let mut encoder = Encoder::new(Position::new(&mut *buffer));
    message.encode(&mut encoder, &mut ()).map_err(|_| NoRoom)?;
    let length = encoder.into_writer().position();
    buffer.get(..length).ok_or(NoRoom)
}

/// Bytes that the message takes.
pub(in super::super) fn length(message: &impl CborLen<()>) -> usize {
    message.cbor_len(&mut ())
}

/// How many of the first items fit a list of at most `room` bytes and [`MAX_LIST`] items.
pub(in super::super) fn fitting<T: CborLen<()>>(
    room: usize,
    items: impl Iterator<Item = T>,
) -> usize {
    // One byte is the head of the list, because MAX_LIST is below 24.
    let mut left = room.saturating_sub(1);
    let fits = |item: &T| match left.checked_sub(length(item)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    items.take(MAX_LIST).take_while(fits).count()
}

/// The milliseconds of a duration, limited to 64 bits.
pub(in super::super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A list of items.
#[derive(Clone)]
pub(in super::super) struct List<I>(pub(in super::super) I);

impl<C, I> Encode<C> for List<I>
where
    I: ExactSizeIterator<Item: Encode<C>> + Clone,
{
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        self.0.clone().try_for_each(|item| item.encode(e, c))
    }
}

impl<C, I> CborLen<C> for List<I>
where
    I: ExactSizeIterator<Item: CborLen<C>> + Clone,
{
    fn cbor_len(&self, c: &mut C) -> usize {
        let items = self.0.clone().map(|item| item.cbor_len(c)).sum::<usize>();
        items + self.0.len().cbor_len(c)
    }
}

/// A list of byte strings.
pub(in super::super) fn byte_strings<T: AsRef<[u8]>>(
    items: &[T],
) -> List<impl ExactSizeIterator<Item = &ByteSlice> + Clone> {
    List(items.iter().map(|item| item.as_ref().into()))
}

/// A map of texts.
pub(in super::super) struct TextMap<'a>(pub(in super::super) &'a [(&'a str, &'a str)]);

impl<C> Encode<C> for TextMap<'_> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (key, value) in self.0 {
            e.str(key)?.str(value)?;
        }
        e.ok()
    }
}

impl<C> Encode<C> for PeerId {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&peer_to_bytes(self))?.ok()
    }
}

impl<C> CborLen<C> for PeerId {
    fn cbor_len(&self, c: &mut C) -> usize {
        PEER_ID_LEN.cbor_len(c) + PEER_ID_LEN
    }
}

#[derive(Encode, CborLen)]
#[cbor(map)]
struct OfferMap<'a, A> {
    #[n(0)]
    peer: &'a PeerId,
    #[n(1)]
    addrs: A,
    #[n(2)]
    ttl: u64,
    #[n(3)]
    free: Option<u32>,
}

fn offer_map<C>(offer: &Offer) -> OfferMap<'_, impl Encode<C> + CborLen<C>> {
    OfferMap {
        peer: &offer.peer,
        addrs: byte_strings(&offer.addrs),
        ttl: millis(offer.ttl),
        free: offer.free,
    }
}

impl<C> Encode<C> for Offer {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        offer_map::<C>(self).encode(e, c)
    }
}

impl<C> CborLen<C> for Offer {
    fn cbor_len(&self, c: &mut C) -> usize {
        offer_map::<C>(self).cbor_len(c)
    }
}

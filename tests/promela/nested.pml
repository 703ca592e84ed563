/* Three EVSEs under two nested limits (R1): A and B under the inner one, A, B and C under the outer one; levels 0..2.
 *
 * The leader grants, renews, lowers and raises as it likes, as long as R1 admits a raise in *every* row above the EVSE,
 * each other EVSE counted at its W: the newest grant until its end, and what stood before a lowering until the newest is
 * acked or that one has ended. Messages may be lost, late, or arrive when a newer one is lost; acks may be lost or late.
 * There is no end of time: whatever is over is set back to 0, so that the states are finite by themselves.
 * -DBROKEN_INNER, -DBROKEN_OUTER: a raise looks at the other row alone. -DBROKEN_LEND: what a lowering frees is lent on
 * at once. -DBROKEN_LIFE: the leader takes a grant for over as soon as the post does. */
#define INNER 2
#define OUTER 3
#define TTL   2
#ifndef BROKEN_LIFE
#define LIFE  (TTL + 1)
#else
#define LIFE  (TTL - 1)
#endif

typedef Post { byte level; byte left }            /* what it may draw, and for how long; fallback 0 */
typedef Way  { byte level; byte left; bit newest } /* the grant under way: left = 0: none */
typedef Book { byte sent; byte until; byte high; byte hold; bit acked }

Post post[3];
Way way[3];
Book book[3];

#define AT_WORST(e) (book[e].high > book[e].sent -> book[e].high : book[e].sent)
#ifdef BROKEN_LEND
#define W(e) book[e].sent
#else
#define W(e) AT_WORST(e)
#endif
#define RISEN(e, v) (W(e) > v -> W(e) : v)

inline holds() {
  assert(post[0].level + post[1].level <= INNER);
  assert(post[0].level + post[1].level + post[2].level <= OUTER)
}

/* Whatever no longer says anything is 0: two states that differ in it alone are one. */
inline tidy(e) {
  if :: book[e].until == 0 -> book[e].sent = 0 :: else fi;
  if :: book[e].sent == 0 -> book[e].until = 0 :: else fi;
  if :: book[e].hold == 0 || book[e].high <= book[e].sent -> book[e].high = 0; book[e].hold = 0 :: else fi;
  if :: way[e].left == 0 -> way[e].level = 0; way[e].newest = 0 :: else fi;
  if :: post[e].left == 0 || post[e].level == 0 -> post[e].level = 0; post[e].left = 0 :: else fi
}

/* Sends level v to e: it is lost at once (one that is under way stays), or takes the place of that one. */
inline send(e, v) {
  if
  :: v < book[e].sent ->
     if :: book[e].sent > book[e].high -> book[e].high = book[e].sent :: else fi;
     if :: book[e].until > book[e].hold -> book[e].hold = book[e].until :: else fi
  :: else
  fi;
  book[e].sent = v; book[e].until = LIFE; book[e].acked = 0; way[e].newest = 0;
  if
  :: way[e].level = v; way[e].left = TTL; way[e].newest = 1
  :: skip
  fi;
  tidy(e)
}

inline arrive(e) {
  post[e].level = way[e].level; post[e].left = way[e].left; book[e].acked = way[e].newest;
  way[e].left = 0;
  tidy(e);
  holds()
}

inline down(x) { if :: x > 0 -> x-- :: else fi }

inline tick() {
  down(post[0].left); down(post[1].left); down(post[2].left);
  down(way[0].left); down(way[1].left); down(way[2].left);
  down(book[0].until); down(book[1].until); down(book[2].until);
  down(book[0].hold); down(book[1].hold); down(book[2].hold);
  tidy(0); tidy(1); tidy(2)
}

#ifdef BROKEN_INNER
#define FITS_INNER(e, v, o) true
#else
#define FITS_INNER(e, v, o) (RISEN(e, v) + W(o) <= INNER)
#endif
#ifdef BROKEN_OUTER
#define FITS_OUTER(e, v, o, p) true
#else
#define FITS_OUTER(e, v, o, p) (RISEN(e, v) + W(o) + W(p) <= OUTER)
#endif

#define UNDER_BOTH(e, v, o, p) (v <= book[e].sent || (FITS_INNER(e, v, o) && FITS_OUTER(e, v, o, p)))
#define UNDER_OUTER(v) (v <= book[2].sent || FITS_OUTER(2, v, 0, 1))

/* The posts' acks: until one comes back a lowering frees nothing. */
inline heard(e) { book[e].acked = 0; book[e].high = 0; book[e].hold = 0 }

active proctype site() {
  do
  :: d_step { tick() }
  :: atomic { UNDER_BOTH(0, 0, 1, 2) -> send(0, 0) }
  :: atomic { UNDER_BOTH(0, 1, 1, 2) -> send(0, 1) }
  :: atomic { UNDER_BOTH(0, 2, 1, 2) -> send(0, 2) }
  :: atomic { UNDER_BOTH(1, 0, 0, 2) -> send(1, 0) }
  :: atomic { UNDER_BOTH(1, 1, 0, 2) -> send(1, 1) }
  :: atomic { UNDER_BOTH(1, 2, 0, 2) -> send(1, 2) }
  :: atomic { UNDER_OUTER(0) -> send(2, 0) }
  :: atomic { UNDER_OUTER(1) -> send(2, 1) }
  :: atomic { UNDER_OUTER(2) -> send(2, 2) }
  :: d_step { way[0].left > 0 -> arrive(0) }
  :: d_step { way[1].left > 0 -> arrive(1) }
  :: d_step { way[2].left > 0 -> arrive(2) }
  :: d_step { book[0].acked -> heard(0) }
  :: d_step { book[1].acked -> heard(1) }
  :: d_step { book[2].acked -> heard(2) }
  od
}

/* Re-energisation (R8) and the fallback above a live grant: one bus stays, one comes back over a tie.
 *
 * EVSE 0 is on the live bus, EVSE 1 and a load of 1 on a bus that loses its supply and may be closed onto the tie again,
 * limit 4. The load picks up at twice its value for two ticks (cold). A post whose lease ends goes to its fallback, 1, which
 * may lie above the grant it had; leases live on while the bus is dead.
 * -DBROKEN_LEASE: the part that comes back counts at its reserves only.  -DBROKEN_PICKUP: its load counts as it was.
 * -DBROKEN_FALLBACK: a live grant below the fallback counts at the grant. */
#define LIMIT 4
#define FALLBACK 1
#define TTL   2
#define LIFE  (TTL + 1)
#define COLD  2
#ifndef LAST
#define LAST  6
#endif

typedef Post { byte level; byte left; byte seq }
typedef Book { byte sent; byte worst; byte until; byte seq }
typedef Note { byte level; byte left; byte seq }

Post post[2];
Book book[2];
Note way[2];
byte now, outages;
bit dead;
byte cold;

#define MOST(a, b) (a > b -> a : b)
#define LOAD     (dead -> 0 : (cold > 0 -> 2 : 1))
#define DRAWN(e) (post[e].left > 0 -> post[e].level : FALLBACK)
#define FLOWS    (DRAWN(0) + (dead -> 0 : DRAWN(1)) + LOAD)
#ifdef BROKEN_FALLBACK
#define W(e)     (book[e].until > 0 -> book[e].worst : FALLBACK)
#else
#define W(e)     (book[e].until > 0 -> MOST(book[e].worst, FALLBACK) : FALLBACK)
#endif
#ifdef BROKEN_LEASE
#define BACK     FALLBACK
#else
#define BACK     W(1)
#endif
#ifdef BROKEN_PICKUP
#define PICKUP   1
#else
#define PICKUP   2
#endif
#define COUNTED  (dead -> 0 : (cold > 0 -> PICKUP : 1))
#define BESIDE(e) (e == 0 -> (dead -> 0 : W(1)) : W(0))
/* Beside a dead bus the live one may be raised; a dead post keeps its lease, and the lease counts when it comes back. */
#define FITS(e, v) (dead && e == 1 -> false : BESIDE(e) + MOST(W(e), v) + COUNTED <= LIMIT)

inline holds() { assert(FLOWS <= LIMIT) }

inline send(e, v) {
  book[e].seq++;
  book[e].worst = (book[e].until > 0 -> MOST(book[e].worst, v) : v);
  book[e].sent = v; book[e].until = LIFE;
  if :: way[e].left == 0 -> way[e].level = v; way[e].left = TTL; way[e].seq = book[e].seq :: else fi
}

inline grant(e) {
  if
  :: send(e, 0)
  :: FITS(e, 2) -> send(e, 2)
  :: FITS(e, 3) -> send(e, 3)
  :: else
  fi
}

inline forget(e) { way[e].left = 0; way[e].level = 0; way[e].seq = 0 }

inline arrive(e) {
  if
  :: way[e].seq > post[e].seq -> post[e].seq = way[e].seq; post[e].level = way[e].level; post[e].left = way[e].left
  :: else
  fi;
  forget(e);
  holds()
}

inline down(x) { if :: x > 0 -> x-- :: else fi }

inline tick() {
  now++;
  for (i : 0 .. 1) {
    down(post[i].left); if :: post[i].left == 0 -> post[i].level = 0 :: else fi;
    down(book[i].until); if :: book[i].until == 0 -> book[i].worst = 0; book[i].sent = 0 :: else fi;
    down(way[i].left); if :: way[i].left == 0 -> forget(i) :: else fi
  }
  down(cold);
  i = 0;
  holds()
}

active proctype site() {
  byte i;
  do
  :: atomic { now < LAST -> tick() }
  :: atomic { book[0].seq < 2 -> grant(0) }
  :: atomic { book[1].seq < 2 -> grant(1) }
  :: atomic { way[0].left > 0 -> if :: arrive(0) :: forget(0) fi }
  :: atomic { way[1].left > 0 -> if :: arrive(1) :: forget(1) fi }
  :: atomic { !dead && outages < 2 -> dead = 1; outages++; cold = 0 }
  :: atomic { dead && W(0) + BACK + PICKUP <= LIMIT -> dead = 0; cold = COLD; holds() }
  :: now == LAST -> break
  od
}

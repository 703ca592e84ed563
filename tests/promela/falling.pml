/* A limit that falls below what is granted (R2, R6): two EVSEs of 0..2, limit 4, then 2; over within E, whatever is lost.
 *
 * From the fall on the leader grants no more than the new limit, renews what it sends, and asserts that E ticks later the
 * posts draw no more than that. Grants and renewals may be lost or late; a renewal prolongs the ceiling last applied.
 * -DBROKEN_LATE: the lowering waits for a tick in which nothing was lost. */
#define WHOLE 4
#define FALLEN 2
#define TTL   2
#define LIFE  (TTL + 1)
#ifndef LAST
#define LAST  7
#endif

typedef Post { byte level; byte left; byte seq }
typedef Book { byte sent; byte seq; byte until }
typedef Note { byte seq; byte level; byte left; bit renews; byte after } /* left = 0: none */

Post post[2];
Book book[2];
Note way[2];
byte now, fell, since;

#define DRAWN(e) (post[e].left > 0 -> post[e].level : 0)
#define SHARE    (fell -> FALLEN / 2 : WHOLE / 2)

inline holds() {
  assert(DRAWN(0) + DRAWN(1) <= WHOLE);
  assert(!fell || since <= LIFE || DRAWN(0) + DRAWN(1) <= FALLEN)
}

inline put(e, v, r) {
  book[e].seq++; book[e].until = LIFE;
  if
  :: way[e].left == 0 ->
     way[e].seq = book[e].seq; way[e].level = v; way[e].left = TTL; way[e].renews = r; way[e].after = book[e].seq - 1
  :: else
  fi
}

inline grant(e) { book[e].sent = SHARE; put(e, SHARE, 0) }

inline renew(e) { put(e, book[e].sent, 1) }

inline arrive(e) {
  if
  :: way[e].seq > post[e].seq && !way[e].renews ->
     post[e].seq = way[e].seq; post[e].level = way[e].level; post[e].left = way[e].left
  :: way[e].seq > post[e].seq && way[e].renews && post[e].left > 0 && post[e].seq == way[e].after ->
     post[e].seq = way[e].seq; post[e].left = way[e].left /* the ceiling last applied, for another while */
  :: else
  fi;
  way[e].left = 0; way[e].seq = 0; way[e].level = 0; way[e].renews = 0; way[e].after = 0;
  holds()
}

inline lose(e) { way[e].left = 0; way[e].seq = 0; way[e].level = 0; way[e].renews = 0; way[e].after = 0 }

inline down(x) { if :: x > 0 -> x-- :: else fi }

inline lower_at_once() {
#ifndef BROKEN_LATE
  for (i : 0 .. 1) { grant(i) }
  i = 0
#else
  skip
#endif
}

inline tick() {
  now++;
  if :: fell && since <= LIFE -> since++ :: else fi;
  for (i : 0 .. 1) {
    down(post[i].left); if :: post[i].left == 0 -> post[i].level = 0 :: else fi;
    down(book[i].until); if :: book[i].until == 0 -> book[i].sent = 0 :: else fi;
    down(way[i].left); if :: way[i].left == 0 -> lose(i) :: else fi
  }
  i = 0;
  holds()
}

active proctype site() {
  byte i;
  do
  :: atomic { now < LAST -> tick() }
  :: atomic { !fell -> fell = 1; lower_at_once() }
  :: atomic { book[0].seq < 4 && (!fell || book[0].sent <= SHARE) -> grant(0) }
  :: atomic { book[1].seq < 4 && (!fell || book[1].sent <= SHARE) -> grant(1) }
  :: atomic { book[0].seq < 4 && book[0].until > 0 && book[0].sent > 0 -> renew(0) }
  :: atomic { book[1].seq < 4 && book[1].until > 0 && book[1].sent > 0 -> renew(1) }
  :: atomic { way[0].left > 0 -> if :: arrive(0) :: lose(0) fi }
  :: atomic { way[1].left > 0 -> if :: arrive(1) :: lose(1) fi }
  :: now == LAST -> break
  od
}

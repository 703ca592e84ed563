/* Two leaders, two EVSEs of 0..2, limit 2: fencing by epoch (R4) and the wait of a leader without state (R3).
 *
 * A leader takes a new epoch, durable, before its first grant, and grants nothing until every lease of those before it is
 * over; it stops by itself when its own lease on the leadership is. Controllers refuse an epoch below the highest they
 * accepted. Grants may be lost, late, or overtake each other.
 * -DBROKEN_WAIT: a new leader grants at once.  -DBROKEN_FENCE: an old one never stops, and controllers take any epoch. */
#define LIMIT 2
#define TTL   2
#define LIFE  (TTL + 1) /* E: clock drift and watchdog fit into one tick */
#ifndef LAST
#define LAST  8         /* ticks looked at */
#endif

typedef Leader { byte epoch; byte waits; byte reign; byte sent[2]; byte until[2] }
typedef Post   { byte level; byte left; byte epoch }
typedef Grant  { byte epoch; byte level; byte left } /* left = 0: no grant; else ticks that it would still be valid */
typedef Way    { Grant at[2] }

Leader leader[2];
Post   post[2];
Way    way[2];
byte now, newest, reigns;

#define DRAWN(e)    (post[e].left > 0 -> post[e].level : 0)
#define OTHER(l, e) (leader[l].until[1 - e] > 0 -> leader[l].sent[1 - e] : 0)
#define VACANT      (leader[0].reign == 0 && leader[1].reign == 0)
#ifdef BROKEN_FENCE
#define LEADS(l)    (leader[l].epoch > 0 && leader[l].waits == 0)
#define TAKES(e, o) true
#else
#define LEADS(l)    (leader[l].epoch > 0 && leader[l].waits == 0 && leader[l].reign > 0)
#define TAKES(e, o) (o >= post[e].epoch)
#endif

inline take_over(l) {
  newest++; reigns++;
  leader[l].epoch = newest; leader[l].reign = TTL;
  leader[l].sent[0] = 0; leader[l].sent[1] = 0; leader[l].until[0] = 0; leader[l].until[1] = 0;
#ifdef BROKEN_WAIT
  leader[l].waits = 0
#else
  leader[l].waits = LIFE; leader[l].reign = LIFE + TTL
#endif
}

inline send(l, e, v) {
  leader[l].sent[e] = (leader[l].until[e] > 0 && leader[l].sent[e] > v -> leader[l].sent[e] : v);
  leader[l].until[e] = LIFE;
  if /* a third message under way pushes none out: it is lost itself */
  :: way[e].at[0].left == 0 -> way[e].at[0].epoch = leader[l].epoch; way[e].at[0].level = v; way[e].at[0].left = TTL
  :: way[e].at[0].left > 0 && way[e].at[1].left == 0 ->
     way[e].at[1].epoch = leader[l].epoch; way[e].at[1].level = v; way[e].at[1].left = TTL
  :: else
  fi
}

inline grant(l, e) {
  if
  :: OTHER(l, e) + 2 <= LIMIT -> send(l, e, 2)
  :: OTHER(l, e) + 1 <= LIMIT -> send(l, e, 1)
  :: else
  fi
}

inline arrive(e, p) {
  if
  :: TAKES(e, way[e].at[p].epoch) ->
     post[e].level = way[e].at[p].level; post[e].left = way[e].at[p].left; post[e].epoch = way[e].at[p].epoch;
     assert(DRAWN(0) + DRAWN(1) <= LIMIT)
  :: else
  fi;
  forget(e, p)
}

inline forget(e, p) { way[e].at[p].epoch = 0; way[e].at[p].level = 0; way[e].at[p].left = 0 }

inline down(x) { if :: x > 0 -> x-- :: else fi }

inline tick() {
  now++;
  for (i : 0 .. 1) {
    down(post[i].left);
    if :: post[i].left == 0 -> post[i].level = 0 :: else fi;
    for (j : 0 .. 1) {
      down(way[i].at[j].left);
      if :: way[i].at[j].left == 0 -> forget(i, j) :: else fi;
      down(leader[i].until[j]);
      if :: leader[i].until[j] == 0 -> leader[i].sent[j] = 0 :: else fi
    }
    down(leader[i].waits);
    down(leader[i].reign)
  }
  i = 0; j = 0
}

active proctype site() {
  byte i, j;
  do
  :: atomic { now < LAST -> tick() }
  :: atomic { reigns < 3 && VACANT -> take_over(0) }
  :: atomic { reigns < 3 && VACANT -> take_over(1) }
  :: atomic { LEADS(0) && leader[0].reign > 0 -> leader[0].reign = TTL }
  :: atomic { LEADS(1) && leader[1].reign > 0 -> leader[1].reign = TTL }
  :: atomic { LEADS(0) -> grant(0, 0) }
  :: atomic { LEADS(0) -> grant(0, 1) }
  :: atomic { LEADS(1) -> grant(1, 0) }
  :: atomic { LEADS(1) -> grant(1, 1) }
  :: atomic { way[0].at[0].left > 0 -> if :: arrive(0, 0) :: forget(0, 0) fi }
  :: atomic { way[0].at[1].left > 0 -> if :: arrive(0, 1) :: forget(0, 1) fi }
  :: atomic { way[1].at[0].left > 0 -> if :: arrive(1, 0) :: forget(1, 0) fi }
  :: atomic { way[1].at[1].left > 0 -> if :: arrive(1, 1) :: forget(1, 1) fi }
  :: now == LAST -> break
  od
}

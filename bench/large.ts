/**
 * `npm run bench -- large [online] [members] [history] [idle]`: what is large. 10,000 devices in one group, a group of 100,000
 * members, a conversation of a million events, 10,000 connections that say nothing. What is compared is done in turns in one run.
 */
import { benchIdle } from './idle-connections.js'
import { benchMembers } from './many-members.js'
import { benchHistory } from './long-history.js'
import { benchOnline } from './online-group.js'
import { runParts } from './run-parts.js'

await runParts({ online: benchOnline, members: benchMembers, history: benchHistory, idle: benchIdle }, (asked) =>
  asked.length === 0 ? ['online', 'members', 'history', 'idle'] : asked,
)

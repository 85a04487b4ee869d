/** A thread of a survey: runs its part of the seeds and sends what they showed. */
import { parentPort, workerData } from 'node:worker_threads'
import { type SurveyOptions, survey } from './survey.js'

parentPort!.postMessage(await survey(workerData as SurveyOptions))

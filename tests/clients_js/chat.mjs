// A page with npm's `ai`, without a page: node chat.mjs ADDRESS CHAT
// It obeys each line of its input (send TEXT, resume, stop) and says what the chat is after each change.
import { AbstractChat, DefaultChatTransport } from 'ai'
import { createInterface } from 'node:readline'

const [address, id] = process.argv.slice(2)
const say = () => {
  const texts = chat.messages.map(({ role, parts }) => [
    role,
    ...parts.filter(({ type }) => type === 'text').map(({ text }) => text),
  ])
  console.log(JSON.stringify({ status: chat.status, messages: texts, error: chat.error?.message }))
}

// What a framework's own class has, such as that of @ai-sdk/react.
const state = {
  status: 'ready',
  error: undefined,
  messages: [],
  pushMessage(message) {
    this.messages = [...this.messages, message]
    say()
  },
  popMessage() {
    this.messages = this.messages.slice(0, -1)
  },
  replaceMessage(index, message) {
    this.messages = this.messages.with(index, structuredClone(message))
    say()
  },
  snapshot: structuredClone,
}

class Chat extends AbstractChat {}
const transport = new DefaultChatTransport({ api: `${address}/api/chat` })
const chat = new Chat({ id, transport, state })

for await (const line of createInterface(process.stdin)) {
  const [command, ...text] = line.split(' ')
  const orders = {
    send: () => chat.sendMessage({ text: text.join(' ') }),
    resume: () => chat.resumeStream(),
    stop: () => chat.stop(),
  }
  orders[command]().then(say)
}
